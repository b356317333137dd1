// Reduces the surrogate gap beside the perturbed loss.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <cmath>
#include <vector>

#include <steppe/descent/step_gradients.hpp>
#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace descent {

/// final = g+ - alpha (g - (<g, g+> / |g+|^2) g+), over all parameter groups (GSAM, arXiv 2203.08065): what is
/// subtracted is the part of g orthogonal to g+, along which L(w + e) - L(w) falls while L(w + e) stays.
///
/// The paper's radius follows the learning rate: Options().rho_schedule(schedule::proportional_to_lr(...)). Two
/// gradients a step; memory: the first gradients during pass 2, and the perturbed weights. Gradients that are not
/// finite are not mixed: final = g+.
///
///     steppe::GSAM<torch::optim::SGD> gsam(*model, torch::optim::SGDOptions(0.1));
///     gsam.descent().alpha(0.2);
class SurrogateGap {
 public:
  static constexpr bool needs_first_gradient = true;  ///< g enters the final gradient

  /// The weight of the part of g orthogonal to g+.
  TORCH_ARG(double, alpha) = 0.4;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static void descend(const std::vector<SurrogateGap*>& of_groups, std::vector<GroupGradients>& groups,
                      const StepGradients& step) {
    if (!step.perturbed) return;
    const auto first = detail::joined(groups, &GroupGradients::first);
    const kernels::Products seen = kernels::products(first, detail::joined(groups, &GroupGradients::final));
    const at::Tensor sum = seen.xx + seen.yy;
    if (detail::is_known_not_finite(sum)) return;  // g+ as it is
    const at::Tensor along = detail::ratio(seen.xy, seen.yy), finite = sum.isfinite();
    for (size_t k = 0; k < groups.size(); ++k) {
      const at::Tensor alpha = at::full_like(along, of_groups[k]->alpha_).masked_fill(finite.logical_not(), 0.0);
      kernels::combine(at::where(finite, along * alpha + 1.0, at::ones_like(along)), groups[k].final, -alpha,
                       groups[k].first, groups[k].final);
    }
  }

  void validate() const { TORCH_CHECK(std::isfinite(alpha_), "steppe: GSAM's alpha must be finite, got ", alpha_); }

  template <class Fields>
  void fields(Fields& field) {
    field("alpha", alpha_);
  }
  ///@}
};

}  // namespace descent
STEPPE_NAMESPACE_END
