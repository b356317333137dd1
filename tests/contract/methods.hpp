// The methods under contract. A new method adds one line here and is tested over every base and dtype.
// SPDX-License-Identifier: MIT
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "any_optimizer.hpp"

namespace contract {

/// A user's own link: twice the gradient, plus a little of the weights.
struct CustomLink {
  void operator()(std::vector<at::Tensor>& direction, const std::vector<at::Tensor>& params) const {
    for (size_t i = 0; i < direction.size(); ++i) direction[i].mul_(2).add_(params[i], 1e-3);
  }
};

template <class Base, class BaseOptions>
class MethodList {
 public:
  explicit MethodList(BaseOptions base_options) : base_options_(std::move(base_options)) {}

  template <class Ascent, class Descent = steppe::descent::PerturbedGradient, class Policy = steppe::policy::EveryStep>
  MethodList& add(std::string name, Ascent ascent, Descent descent = {}, steppe::Options options = {},
                  Policy policy = {}) {
    const BaseOptions base_options = base_options_;
    Method method;
    method.name = std::move(name);
    method.changes_descent = !std::is_same_v<Descent, steppe::descent::PerturbedGradient>;
    method.is_ahead = steppe::detail::is_ahead_of_pass_one<Ascent>;
    method.make = [=](const Groups& groups) -> std::unique_ptr<AnyOptimizer> {
      return std::make_unique<Handle<Base, Ascent, Descent, Policy>>(groups, base_options, options, ascent, descent,
                                                                     policy);
    };
    methods_.push_back(std::move(method));
    return *this;
  }

  std::vector<Method> take() { return std::move(methods_); }

 private:
  BaseOptions base_options_;
  std::vector<Method> methods_;
};

template <class List>
void add_with_memory(List& list) {
  namespace ascent = steppe::ascent;
  namespace descent = steppe::descent;
  const auto nearly_always = steppe::policy::Adaptive().total(20).c_first(-1e6).c_last(-1e6);
  list.add("AESAM", ascent::Gradient(), {}, {}, nearly_always);
  list.add("LookSAM", ascent::Gradient(), descent::Reuse());
  list.add("LookSAM_ZSharp", ascent::ZScoreFilter(), descent::Reuse().per_tensor(true).measured(true));
  list.add("AELookSAM", ascent::Gradient(), descent::Reuse(), {}, nearly_always);
  list.add("FriendlySAM", ascent::Friendly());
  list.add("Friendly_Centralize", ascent::Chain(ascent::Friendly(), ascent::Centralize()));
  list.add("VaSSO", ascent::VarianceSuppressed());
  list.add("SSAM", ascent::FisherMask().interval(2));
  list.add("WSAM", ascent::Gradient(), descent::Weighted().gamma(0.6));
  list.add("WSAM_coupled", ascent::Gradient(), descent::Weighted().gamma(0.6).decoupled(false));
  list.add("XSAM", ascent::Gradient(), descent::Extrapolated().fixed(0.7));
  list.add("MSAM", ascent::Momentum());
  list.add("MSAM_ZSharp", ascent::Chain(ascent::Momentum(), ascent::ZScoreFilter()));
  list.add("S2SAM", ascent::LastGradient());
}

template <class Base, class BaseOptions>
std::vector<Method> all_methods(const BaseOptions& base_options) {
  namespace ascent = steppe::ascent;
  namespace descent = steppe::descent;
  using steppe::Options;
  const double inf = std::numeric_limits<double>::infinity();
  MethodList<Base, BaseOptions> list(base_options);
  list.add("SAM", ascent::Gradient());
  list.add("SAM_p3", ascent::Gradient(), descent::PerturbedGradient(), Options().p(3));
  list.add("SAM_pInf", ascent::Gradient(), descent::PerturbedGradient(), Options().p(inf).rho(0.01));
  list.add("ASAM", ascent::AdaptiveScale());
  list.add("ASAM_davda54", ascent::AdaptiveScale::davda54());
  list.add("ZSharp", ascent::ZScoreFilter());
  list.add("ZSharp_released_code", ascent::ZScoreFilter::released_code());
  list.add("ZSharp_global", ascent::ZScoreFilter().threshold(steppe::Threshold::Global));
  list.add("ZSharp_energy", ascent::ZScoreFilter().energy(0.9));
  list.add("ZSharp_robust", ascent::ZScoreFilter().z_score(steppe::ZScore::Robust));
  list.add("GCSAM", ascent::Centralize());
  list.add("GCSAM_raw", ascent::Centralize().norm(steppe::Norm::Raw));
  list.add("GCSAM_conv_only", ascent::Centralize().conv_only(true));
  list.add("GCSAM_center_descent", ascent::Centralize(), descent::Centralize().center_descent(true));
  list.add("Centralize_Filter_Scale",
           ascent::Chain(ascent::Centralize(), ascent::ZScoreFilter().percentile(0.75), ascent::AdaptiveScale()));
  list.add("CustomLink", CustomLink());
  list.add("CustomLink_Filter", ascent::Chain(CustomLink(), ascent::ZScoreFilter()));
  list.add("ZSharp_empty_tail", ascent::ZScoreFilter().empty_tail(steppe::EmptyTail::Whole));
  list.add("SAM_unified", ascent::Gradient(), {}, Options().radius(steppe::schedule::unified(0.5)));
  list.add("Tail", ascent::Gradient(), {}, {}, steppe::policy::Tail().total(100).share(1.0).ramp(3));
  list.add("GSAM", ascent::Gradient(), descent::SurrogateGap());
  list.add("GSAM_ASAM", ascent::AdaptiveScale(), descent::SurrogateGap());
  list.add("StableSAM", ascent::Gradient(), descent::Rescaled());
  // What remembers something from step to step needs one evaluation a step.
  if constexpr (steppe::detail::StepsWithoutClosure<Base>::value) add_with_memory(list);
  return list.take();
}

BaseUnderTest sgd();
BaseUnderTest adam();
BaseUnderTest adamw();
BaseUnderTest rmsprop();
BaseUnderTest adagrad();
BaseUnderTest lbfgs();
BaseUnderTest users_own();
BaseUnderTest fused_sgd();
BaseUnderTest fused_adamw();

/// The bases under contract, each with all methods.
inline std::vector<BaseUnderTest> all_bases() {
  return {sgd(), adam(), adamw(), rmsprop(), adagrad(), lbfgs(), users_own(), fused_sgd(), fused_adamw()};
}

/// A base with its options for the suite.
template <class Base, class BaseOptions>
BaseUnderTest base_under_test(std::string name, const BaseOptions& base_options) {
  BaseUnderTest base;
  base.name = std::move(name);
  base.make = [base_options](const Groups& groups) { return std::make_unique<Base>(groups, base_options); };
  base.methods = all_methods<Base>(base_options);
  return base;
}

}  // namespace contract
