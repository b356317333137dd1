// SPDX-License-Identifier: MIT
#include "base_step.hpp"

#include <ATen/ops/randn.h>
#include <c10/core/ScalarType.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <steppe/base/fused.hpp>

#include "interval.hpp"
#include "parameter_list.hpp"
#include "rounds.hpp"
#include "seconds.hpp"

namespace benchmarks {
namespace {

/// An optimizer over its own copies of the same weights and gradients.
template <class Optimizer, class Options>
class Stepper {
 public:
  Stepper(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& gradients, const Options& options) {
    for (size_t i = 0; i < weights.size(); ++i) {
      weights_.push_back(weights[i].clone().requires_grad_(true));
      weights_[i].mutable_grad() = gradients[i].clone();
    }
    optimizer_ = std::make_unique<Optimizer>(weights_, options);
  }

  void step() { optimizer_->step(); }
  /// The best mean of several calls, each over at least this many seconds.
  double seconds(double at_least) {
    int calls = 1;
    for (;; calls *= 2) {
      const double taken = seconds_of(calls);
      if (taken < at_least) continue;
      double best = taken / calls;
      for (int i = 0; i < 2; ++i) best = std::min(best, seconds_of(calls) / calls);
      return best;
    }
  }
  const std::vector<at::Tensor>& weights() const { return weights_; }

 private:
  double seconds_of(int calls) {
    const double before = seconds_now();
    for (int i = 0; i < calls; ++i) optimizer_->step();
    return seconds_now() - before;
  }

  std::vector<at::Tensor> weights_;
  std::unique_ptr<Optimizer> optimizer_;
};

struct Case {
  ParameterList list;
  at::ScalarType dtype;
  std::vector<at::Tensor> weights, gradients;
};

Case make_case(ParameterList list, at::ScalarType dtype) {
  Case made{std::move(list), dtype, {}, {}};
  for (const Shape& shape : made.list.shapes) {
    made.weights.push_back(at::randn(shape).mul_(0.1).to(dtype));
    made.gradients.push_back(at::randn(shape).mul_(0.01).to(dtype));
  }
  return made;
}

/// Three steps of visible size, at a rate of 0.1. Each moves a weight by less than 0.2 and rounds it twice at most.
template <class Base, class Options>
void check(const std::string& name, Options options, const Case& one) {
  constexpr int kSteps = 3;
  options.lr(0.1);
  Stepper<Base, Options> by_class(one.weights, one.gradients, options);
  Stepper<steppe::Fused<Base>, Options> fused(one.weights, one.gradients, options);
  for (int i = 0; i < kSteps; ++i) {
    by_class.step();
    fused.step();
  }
  const double unit = one.dtype == at::kBFloat16 ? 0x1p-8 : 0x1p-24;
  double moved = 0.0;
  for (size_t i = 0; i < one.weights.size(); ++i) {
    const at::Tensor exact = by_class.weights()[i].detach().to(at::kDouble);
    const at::Tensor bound = (exact.abs() + 0.2) * (4.0 * kSteps * unit);
    if (((fused.weights()[i].detach().to(at::kDouble) - exact).abs() - bound).max().template item<double>() > 0.0)
      throw std::runtime_error(name + ": the fused step differs from the class's");
    moved = std::max(moved, (exact - one.weights[i].to(at::kDouble)).abs().max().template item<double>());
  }
  if (!(moved > 0.0)) throw std::runtime_error(name + ": no step was made");
}

template <class Base, class Options>
void compare(const std::string& optimizer, const Options& options, double target, const Case& one,
             const RoundLimits& limits, double at_least) {
  const std::string name = optimizer + "@" + one.list.name + (one.dtype == at::kBFloat16 ? "-bf16" : "");
  check<Base>(name, options, one);
  Stepper<Base, Options> by_class(one.weights, one.gradients, options);
  Stepper<steppe::Fused<Base>, Options> fused(one.weights, one.gradients, options);
  std::vector<double> of_class, of_fused, ratios;
  for_rounds(1, limits, [&](size_t) {
    of_class.push_back(by_class.seconds(at_least));
    of_fused.push_back(fused.seconds(at_least));
    ratios.push_back(of_class.back() / of_fused.back());
  });
  const Interval ratio = interval_of(ratios);
  std::printf("  %-24s %10.1f us %10.1f us", name.c_str(), 1e6 * median_of(of_class), 1e6 * median_of(of_fused));
  if (target > 0.0) std::printf("   target >= %.1f, %s", target, ratio.median >= target ? "met" : "missed");
  std::printf("\nratio class/fused_%s %.3f %.3f %.3f\n", name.c_str(), ratio.median, ratio.low, ratio.high);
  std::fflush(stdout);
}

}  // namespace

void compare_base_steps(const Settings& settings) {
  using namespace torch::optim;
  RoundLimits limits;
  limits.rounds = settings.quick ? std::min(settings.rounds, 3) : settings.rounds;
  const double at_least = settings.quick ? 0.001 : 0.02;
  std::printf("\nthe base's step: LibTorch's class, then fused\n");
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (ParameterList list : {mlp(), resnet20(), resnet18()}) {
      const double of_adamw = list.name == "resnet20" ? 2.5 : 4.0;
      const Case one = make_case(std::move(list), dtype);
      // Rates so small that the weights hardly move; the cost is the usual one.
      compare<AdamW>("adamw", AdamWOptions(1e-6), of_adamw, one, limits, at_least);
      compare<SGD>("sgd", SGDOptions(1e-6).momentum(0.9).weight_decay(5e-4), 3.0, one, limits, at_least);
      compare<Adagrad>("adagrad", AdagradOptions(1e-6), 0.0, one, limits, at_least);
      compare<RMSprop>("rmsprop", RMSpropOptions(1e-6), 0.0, one, limits, at_least);
    }
}

}  // namespace benchmarks
