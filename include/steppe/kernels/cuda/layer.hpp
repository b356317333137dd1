// One parameter tensor of an ascent on the device, and where the results of an ascent are written.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/layer.hpp>
#include <steppe/kernels/ops.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// What the device needs to know of a layer besides, to find its factor there.
struct Layer : kernels::Layer {
  double rho = 0.0;
  bool counted = true;  ///< in the global norms
  Norm norm = Norm::Direction;
};

/// Device memory that an ascent writes its results to; the arrays have one number per layer.
struct Results {
  double* gradient_norm = nullptr;
  double* perturbation_norm = nullptr;
  double* kept_share = nullptr;
  bool* finite = nullptr;
  double* layer_gradient_norm = nullptr;
  double* layer_perturbation_norm = nullptr;
  double* layer_kept_share = nullptr;
};

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
