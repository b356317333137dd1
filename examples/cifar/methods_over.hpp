// Every method over one base.
//
// Methods times bases take minutes to compile: optimizers.cpp and adam_optimizers.cpp share them, for two cores.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/base/fused.hpp>
#include <steppe/optimizers.hpp>

#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "models.hpp"
#include "optimizers.hpp"

namespace cifar {

AnyOptimizer over_adam(const std::string& method, const torch::nn::Module& model, const OptimizerSettings& settings);
AnyOptimizer over_adamw(const std::string& method, const torch::nn::Module& model, const OptimizerSettings& settings);

template <class Base>
void set_fused(steppe::Fused<Base>& optimizer, bool fused) {
  optimizer.enabled(fused);
}
inline void set_fused(torch::optim::Optimizer& /*has_one_step*/, bool /*fused*/) {}

/// With access to the report of its last step.
template <class Optimizer>
AnyOptimizer watched(std::unique_ptr<Optimizer> optimizer) {
  const Optimizer* seen = optimizer.get();
  return {std::move(optimizer), [seen] { return seen->report().sharpness; },
          [seen] { return seen->report().perturbed; }};
}

/// The cores of each tensorized layer are a group; all other parameters are one group that is not scaled.
template <class Base, class BaseOptions>
AnyOptimizer deviation_aware(const BaseOptions& base, const torch::nn::Module& model,
                             const OptimizerSettings& settings) {
  std::vector<torch::optim::OptimizerParamGroup> groups;
  std::unordered_set<const void*> seen;
  for (const std::vector<at::Tensor>& cores : cores_of(model)) {
    groups.emplace_back(cores);
    for (const at::Tensor& core : cores) seen.insert(core.unsafeGetTensorImpl());
  }
  if (groups.empty()) throw std::runtime_error("das scales the cores of tensorized layers; give --tensorize a format");
  std::vector<at::Tensor> others;
  for (const at::Tensor& parameter : model.parameters())
    if (seen.count(parameter.unsafeGetTensorImpl()) == 0) others.push_back(parameter);
  groups.emplace_back(others);
  auto optimizer = std::make_unique<steppe::DAS<Base>>(groups, base, steppe::ScalingOptions().alpha(settings.alpha));
  set_fused(*optimizer, settings.fused);
  optimizer->scaling(groups.size() - 1).alpha(0.0);
  return {std::move(optimizer)};
}

/// A base with the model and the settings that its methods are made from. What is not called is not compiled: methods
/// with memory do not compile over LBFGS.
template <class Base, class BaseOptions>
class Methods {
 public:
  Methods(const BaseOptions& base, const torch::nn::Module& model, const OptimizerSettings& settings)
      : base_(base), model_(model), settings_(settings), options_(steppe::Options().rho(settings.rho)) {}

  AnyOptimizer all(const std::string& method) const {
    AnyOptimizer any = most(method);
    return any.optimizer ? std::move(any) : others(method);
  }

  AnyOptimizer most(const std::string& method) const {
    AnyOptimizer any = everywhere(method);
    return any.optimizer ? std::move(any) : once_a_step(method);
  }

  /// The base alone, and the methods that work over every base.
  AnyOptimizer everywhere(const std::string& method) const {
    if (method.empty()) {
      auto alone = std::make_unique<Base>(model_.parameters(), base_);
      set_fused(*alone, settings_.fused);
      return {std::move(alone)};
    }
    using steppe::ascent::Centralize, steppe::ascent::Chain, steppe::ascent::ZScoreFilter;
    using CentralizedZSharp = steppe::SharpnessAware<Base, Chain<Centralize, ZScoreFilter>>;
    const auto filter = ZScoreFilter().percentile(settings_.percentile);
    if (method == "sam") return watched(made<steppe::SAM<Base>>());
    if (method == "asam") return watched(made<steppe::ASAM<Base>>());
    if (method == "zsharp") return watched(made<steppe::ZSharp<Base>>(filter));
    if (method == "gcsam") return watched(made<steppe::GCSAM<Base>>());
    if (method == "gczsharp") return watched(made<CentralizedZSharp>(Chain(Centralize(), filter)));
    if (method == "tail") {
      auto tail = made<steppe::Tail<Base>>();
      tail->policy().total(settings_.steps).share(settings_.tail_share);
      return watched(std::move(tail));
    }
    if (method == "every") {
      auto sam = made<steppe::SAM<Base>>();
      sam->every(interval_of(method));
      return watched(std::move(sam));
    }
    return {};
  }

 private:
  /// Methods that remember something from step to step.
  AnyOptimizer once_a_step(const std::string& method) const {
    if (method == "das") return deviation_aware<Base>(base_, model_, settings_);
    if (method == "msam") return watched(made<steppe::MSAM<Base>>());
    if (method == "looksam") {
      auto looksam = made<steppe::LookSAM<Base>>(steppe::ascent::Gradient(), correction());
      looksam->every(interval_of(method));
      return watched(std::move(looksam));
    }
    return {};
  }

  /// The rest of the family.
  AnyOptimizer others(const std::string& method) const {
    if (method == "s2sam") return watched(made<steppe::S2SAM<Base>>());
    if (method == "friendly") return watched(made<steppe::FriendlySAM<Base>>());
    if (method == "vasso") return watched(made<steppe::VaSSO<Base>>());
    if (method == "ssam") return watched(made<steppe::SSAM<Base>>());
    if (method == "gsam") return watched(made<steppe::GSAM<Base>>());
    if (method == "wsam") return watched(made<steppe::WSAM<Base>>());
    if (method == "stablesam") return watched(made<steppe::StableSAM<Base>>());
    if (method == "aesam") {
      auto aesam = made<steppe::AESAM<Base>>();
      aesam->policy().total(settings_.steps);
      return watched(std::move(aesam));
    }
    if (method == "aelooksam") {
      auto aelooksam = made<steppe::AELookSAM<Base>>(steppe::ascent::Gradient(), correction());
      aelooksam->policy().total(settings_.steps);
      return watched(std::move(aelooksam));
    }
    if (method == "xsam") {
      auto xsam = made<steppe::XSAM<Base>>();
      xsam->descent().interval(settings_.epoch_steps);
      auto* const by_losses = xsam.get();
      AnyOptimizer any = watched(std::move(xsam));
      any.step_with_loss = [by_losses](const auto& pass, const auto& loss) { return by_losses->step(pass, loss); };
      return any;
    }
    return {};
  }

  template <class Optimizer, class... Links>
  std::unique_ptr<Optimizer> made(const Links&... links) const {
    auto optimizer = std::make_unique<Optimizer>(model_, base_, options_, links...);
    set_fused(*optimizer, settings_.fused);
    return optimizer;
  }

  int64_t interval_of(const std::string& method) const {
    return OptimizerName{"", method}.interval(settings_.interval);
  }

  /// The correction of plain steps, with the length measured when it was made: any fixed alpha is too large for some
  /// network.
  static steppe::descent::Reuse correction() { return steppe::descent::Reuse().measured(true); }

  const BaseOptions& base_;
  const torch::nn::Module& model_;
  const OptimizerSettings& settings_;
  steppe::Options options_;
};

template <class Base, class BaseOptions>
Methods<Base, BaseOptions> methods_over(const BaseOptions& base, const torch::nn::Module& model,
                                        const OptimizerSettings& settings) {
  return {base, model, settings};
}

}  // namespace cifar
