// The gradient at the perturbed weights as the final gradient.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// What the base optimizer consumes, made of the gradients of both passes.
namespace descent {

/// final = g+, as in SAM (arXiv 2010.01412).
///
/// A descent is a callable (std::vector<Tensor>& final, const std::vector<Tensor>& first): `final` holds the gradients
/// of one parameter group at w + e and receives what the base optimizer consumes; `first` holds those at w where
/// `needs_first_gradient` is true, and undefined tensors elsewhere.
class PerturbedGradient {
 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding an ascent link".
  static constexpr bool needs_first_gradient = false;
  void operator()(std::vector<at::Tensor>& /*final*/, const std::vector<at::Tensor>& /*first*/) const {}
  ///@}
};

}  // namespace descent
STEPPE_NAMESPACE_END
