// A tensor read as a matrix along one mode, and what the decompositions do with such matrices.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/tensordot.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

namespace steppe::tensorized {

/// The fibres of one mode as columns, [d_mode, product of the others in their order]. A view where possible.
inline at::Tensor unfold(const at::Tensor& tensor, int64_t mode) {
  return tensor.movedim(mode, 0).reshape({tensor.size(mode), -1});
}

/// Multiplies every fibre of one mode by a matrix [m, d_mode]: the mode's size becomes m. Differentiable.
inline at::Tensor mode_product(const at::Tensor& tensor, const at::Tensor& matrix, int64_t mode) {
  return at::tensordot(tensor, matrix, {mode}, {1}).movedim(-1, mode);
}

/// The first `count` left singular vectors of a matrix, [rows, count], largest first.
///
/// Taken from R^T of A^T = Q R: as exact as a decomposition of A, and nothing as wide as A is written beside R.
inline at::Tensor leading_left_vectors(const at::Tensor& matrix, int64_t count) {
  const at::Tensor r = std::get<1>(at::linalg_qr(matrix.t(), "r"));
  return std::get<0>(at::linalg_svd(r.t(), /*full_matrices=*/false)).slice(1, 0, count);
}

/// The tensor in float64, once it is known to have a decomposition. Errors: no modes, an empty mode, a type that is not
/// real floating point, values that are not finite.
inline at::Tensor decomposable(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.defined() && tensor.dim() > 0 && tensor.numel() > 0, "steppe: a tensor of shape ",
              tensor.defined() ? tensor.sizes() : c10::IntArrayRef(), " cannot be decomposed: it has no entries");
  TORCH_CHECK(tensor.is_floating_point(), "steppe: a tensor of ", tensor.scalar_type(),
              " cannot be decomposed; convert it to a floating-point type");
  at::Tensor wide = tensor.detach().to(at::kDouble);
  TORCH_CHECK(wide.isfinite().all().item<bool>(),
              "steppe: a tensor with entries that are not finite cannot be decomposed");
  return wide;
}

/// Frobenius norm of a float64 tensor.
inline double frobenius(const at::Tensor& tensor) { return std::sqrt(tensor.square().sum().item<double>()); }

}  // namespace steppe::tensorized
