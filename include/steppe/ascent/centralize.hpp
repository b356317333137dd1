// Gradient centralization as an ascent link.
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/arg.h>

#include <c10/util/Exception.h>

#include <cstdint>

#include <steppe/direction.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace ascent {

/// c = g - mean(g) over every dimension but the first, for tensors of at least two dimensions (arXiv 2004.01461;
/// as an ascent: GCSAM, arXiv 2501.11584).
///
/// e = rho * c / N(c) by default. A weight of shape (out, 1) centralizes to zero and is not perturbed. Tensors of one
/// dimension enter unchanged. The mean is accumulated in double and rounded once to the gradient's dtype.
///
///     steppe::GCSAM<torch::optim::SGD> gcsam(*model, torch::optim::SGDOptions(0.1), steppe::Options(),
///                                            steppe::ascent::Centralize().norm(steppe::Norm::Raw));
class Centralize {
 public:
  static constexpr Stage stage = Stage::Centralize;  ///< its place in a Chain

  /// Norm::Direction: divide by N(c), so that |e| = rho. Norm::Raw: by N(g), so that |e| <= rho (the released script).
  TORCH_ARG(Norm, norm) = Norm::Direction;
  /// Only convolution weights (dim >= 4).
  TORCH_ARG(bool, conv_only) = false;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding an ascent link".
  void describe(Recipe& recipe, int64_t /*step*/) const {
    recipe.centralize.on = true;
    recipe.centralize.min_dim = conv_only_ ? 4 : 2;
    recipe.norm = norm_;
  }

  void validate() const {
    TORCH_CHECK(norm_ == Norm::Direction || norm_ == Norm::Raw,
                "steppe: Centralize().norm() takes Norm::Direction or Norm::Raw, got ", static_cast<int64_t>(norm_));
  }

  template <class Fields>
  void fields(Fields& field) {
    field("norm", norm_);
    field("conv_only", conv_only_);
  }
  ///@}
};

}  // namespace ascent
STEPPE_NAMESPACE_END
