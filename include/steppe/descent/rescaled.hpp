// The second gradient with the length of the first.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <vector>

#include <steppe/descent/step_gradients.hpp>
#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace descent {

/// final = (|g| / |g+|) g+, both over all parameter groups (Stable-SAM, arXiv 2401.07250): the step stays as long as
/// that of the base optimizer. Two gradients a step; memory: none beyond SAM's. Where a norm is not finite, final = g+.
///
///     steppe::StableSAM<torch::optim::SGD> sam(*model, torch::optim::SGDOptions(0.1));
class Rescaled {
 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static constexpr bool needs_first_gradient = false;
  static constexpr bool needs_first_squares = true;

  static void descend(const std::vector<Rescaled*>&, std::vector<GroupGradients>& groups, const StepGradients& step) {
    if (!step.perturbed) return;
    const at::Tensor squares = kernels::squares(detail::joined(groups, &GroupGradients::final));
    const at::Tensor first = step.first_squares.to(squares.device()), finite = (first + squares).isfinite();
    if (detail::is_known_not_finite(first + squares)) return;  // g+ as it is
    const at::Tensor factor = at::where(finite, detail::ratio(first, squares).sqrt(), at::ones_like(squares));
    const at::Tensor nothing = at::zeros_like(squares);
    for (GroupGradients& group : groups)
      kernels::combine(factor, group.final, nothing, std::vector<at::Tensor>(group.final.size()), group.final);
  }

  template <class Fields>
  void fields(Fields&) {}
  ///@}
};

}  // namespace descent
STEPPE_NAMESPACE_END
