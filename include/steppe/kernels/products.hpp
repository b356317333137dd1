// The inner products of two lists of gradients.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels {

/// Sums over all pairs: 0-dim float64 tensors. Of complex tensors the real parts, Re<conj(x), y>.
struct Products {
  at::Tensor xx, xy, yy;
};

}  // namespace kernels

STEPPE_NAMESPACE_END
