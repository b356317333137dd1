// The inputs and results of the kernels, as tensors.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <steppe/kernels/ops.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// One parameter tensor of an ascent.
struct AscentTask {
  at::Tensor param;        ///< w
  at::Tensor direction;    ///< what the recipe starts from: the gradient, dense, of the parameter's shape
  at::Tensor gradient;     ///< what Norm::Raw measures, where links have changed the direction
  at::Tensor destination;  ///< receives w + e: the parameter itself, the direction's memory, or a buffer
  Recipe recipe;
  double rho = 0.0;        ///< 0: measured only, not perturbed
  bool in_norm = true;     ///< counts in the global norms
  bool norm_gain = false;  ///< the gain of a normalization layer
  bool fused = true;       ///< false: by the definition, even if the kernels support it
  bool moved = false;      ///< set by the ascent: the destination holds w + e
};

/// What an ascent measured; every tensor is float64 and stays on the device until it is read.
struct AscentResult {
  at::Tensor gradient_norm;            ///< |g|, 0-dim
  at::Tensor perturbation_norm;        ///< |e|, 0-dim
  at::Tensor kept_share;               ///< of the components that a filter examined; 1 without a filter
  at::Tensor finite;                   ///< bool, 0-dim: false if the norms were not finite and nothing moved
  at::Tensor layer_gradient_norm;      ///< the same per task, 1-D
  at::Tensor layer_perturbation_norm;  ///< 1-D
  at::Tensor layer_kept_share;         ///< 1-D
};

namespace kernels {

/// Sums over all pairs: 0-dim float64 tensors. Of complex tensors the real parts, Re<conj(x), y>.
struct Products {
  at::Tensor xx, xy, yy;
};

}  // namespace kernels
STEPPE_NAMESPACE_END
