// Scaling of the ascent by the size of the weights.
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/arg.h>

#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>

#include <steppe/direction.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace ascent {

/// e = rho * T^2 d / N(T d), the ascent of ASAM (arXiv 2102.11600). T is diagonal, by one of two conventions:
///
/// - ScaleConvention::Paper (default): T = |w| + eta on weights (two dimensions or more) and on the gains of
///   normalization layers, 1 on other tensors; rho 0.5, eta 0.01. Gains are known through the optimizer's module
///   (constructor or attach), or by vectors(true) for a whole group; without either, tensors of one dimension count as
///   biases.
/// - davda54(): T = |w| on every tensor, no eta; rho 2.
///
/// Complex tensors use |w|. Reads the weights in the norm pass, so it costs one read more than SAM.
///
///     steppe::ASAM<torch::optim::SGD> asam(*model, torch::optim::SGDOptions(0.1), steppe::Options(),
///                                          steppe::ascent::AdaptiveScale::davda54());
class AdaptiveScale {
 public:
  static constexpr Stage stage = Stage::Scale;  ///< its place in a Chain

  /// Which of the two conventions T follows.
  TORCH_ARG(ScaleConvention, convention) = ScaleConvention::Paper;
  /// The floor of T in the paper's convention.
  TORCH_ARG(double, eta) = 0.01;
  /// The group's tensors of one dimension are gains of normalization layers: scale them too.
  TORCH_ARG(bool, vectors) = false;

 public:
  /// The default: T = |w| + eta on weights and normalization gains, 1 on other tensors.
  static AdaptiveScale paper() { return AdaptiveScale(); }
  /// T = |w| on every tensor, with a default rho of 2.
  static AdaptiveScale davda54() { return AdaptiveScale().convention(ScaleConvention::Davda54); }

  /// The radius where Options does not set one.
  double default_rho() const { return convention_ == ScaleConvention::Paper ? 0.5 : 2.0; }

  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding an ascent link".
  void describe(Recipe& recipe, int64_t /*step*/) const {
    recipe.scale.on = true;
    recipe.scale.convention = convention_;
    recipe.scale.eta = eta_;
    recipe.scale.vectors = vectors_;
  }

  void validate() const {
    detail::check_enumerator("AdaptiveScale().convention()", convention_, 2);
    TORCH_CHECK(std::isfinite(eta_) && eta_ >= 0.0, "steppe: AdaptiveScale().eta() must be finite and at least 0, got ",
                eta_);
  }

  template <class Fields>
  void fields(Fields& field) {
    field("convention", convention_);
    field("eta", eta_);
    field("vectors", vectors_);
  }
  ///@}
};

}  // namespace ascent
STEPPE_NAMESPACE_END
