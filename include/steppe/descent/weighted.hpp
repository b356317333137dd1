// A weighted sum of loss and sharpness.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <utility>
#include <vector>

#include <steppe/descent/step_gradients.hpp>
#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace descent {

/// Descends the loss plus a times the sharpness, a = gamma / (1 - gamma) (WSAM, arXiv 2305.15817):
///
///     coupled:    final = g + a (g+ - g)
///     decoupled:  final = g; after the base's step  w <- w - lr a (g+ - g)
///
/// A gradient that one of the passes does not give counts as zero. gamma .5 is SAM, .9 means a = 9. Decoupled, the base
/// optimizer's averages, hooks and clipping see g alone. Two gradients a step; memory: the first gradients during pass
/// 2, and the perturbed weights.
///
///     steppe::WSAM<torch::optim::Adam> wsam(*model, torch::optim::AdamOptions(1e-3));
///     wsam.descent().gamma(0.8);
class Weighted {
 public:
  static constexpr bool needs_first_gradient = true;  ///< g enters the final gradient

  /// The weight of the sharpness, in [0, 1).
  TORCH_ARG(double, gamma) = 0.9;
  /// true: the decoupled rule; false: the coupled one.
  TORCH_ARG(bool, decoupled) = true;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static constexpr bool keeps_state = true;
  static constexpr bool sees_all_gradients = true;

  static void descend(const std::vector<Weighted*>& of_groups, std::vector<GroupGradients>& groups,
                      const StepGradients& step) {
    for (size_t k = 0; k < groups.size(); ++k) {
      Weighted& own = *of_groups[k];
      own.after_.clear();
      if (!step.perturbed) continue;
      const double a = own.gamma_ / (1.0 - own.gamma_);
      if (!own.decoupled_) {
        kernels::combine(a, groups[k].final, 1.0 - a, groups[k].first, groups[k].final);
        continue;
      }
      std::vector<at::Tensor> sharpness(groups[k].final.size());
      kernels::combine(a, groups[k].final, -a, groups[k].first, sharpness);
      for (size_t i = 0; i < sharpness.size(); ++i) {
        own.after_.emplace_back(groups[k].params[i], sharpness[i]);
        groups[k].final[i] = groups[k].first[i];  // none where pass 1 gave none
      }
    }
  }

  bool needs_lr() const { return decoupled_; }
  void after_step(double lr) {
    const c10::NoGradGuard no_grad;
    for (const auto& [param, sharpness] : std::exchange(after_, {})) param.detach().add_(sharpness, -lr);
  }

  void validate() const {
    TORCH_CHECK(gamma_ >= 0.0 && gamma_ < 1.0, "steppe: WSAM's gamma must be in [0, 1), got ", gamma_);
  }

  template <class Fields>
  void fields(Fields& field) {
    field("gamma", gamma_);
    field("decoupled", decoupled_);
  }
  ///@}

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> after_;
};

}  // namespace descent
STEPPE_NAMESPACE_END
