// The gradient itself as the ascent direction.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/direction.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// Links of an ascent: what makes the direction of the perturbation from a gradient.
namespace ascent {

/// d = g, the direction of SAM (arXiv 2010.01412). Costs one norm and one ascent; keeps nothing.
///
///     steppe::SharpnessAware<torch::optim::SGD, steppe::ascent::Gradient> sam(*model, torch::optim::SGDOptions(0.1));
class Gradient {
 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding an ascent link".
  static constexpr Stage stage = Stage::Custom;
  void describe(Recipe&, int64_t /*step*/) const {}
  ///@}
};

}  // namespace ascent
STEPPE_NAMESPACE_END
