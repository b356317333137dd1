// One parameter tensor of an ascent as device memory, and where the results of an ascent are written.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/ops.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// How numbers are stored.
enum class Format : int32_t { Float32, BFloat16, Half };

/// One parameter tensor in the order of its memory, and what the recipe does with it. Every pointer is to device
/// memory.
struct Layer {
  Format format = Format::Float32;
  const void* direction = nullptr;
  const void* weights = nullptr;
  void* out = nullptr;  ///< receives w + e; may be the direction or the weights; null: measured only
  int64_t size = 0;
  int64_t row = 0;  ///< components per output row if it is centralized; otherwise 0
  bool filtered = false;
  double quantile = 0.95;
  bool scaled = false;
  double eta = 0.0;
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
