// A tensor read as a matrix along one mode, and what the decompositions do with such matrices.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// The fibres of one mode as columns, [d_mode, product of the others in their order]. A view where possible.
inline at::Tensor unfold(const at::Tensor& tensor, int64_t mode) {
  return tensor.movedim(mode, 0).reshape({tensor.size(mode), -1});
}

/// Multiplies every fibre of one mode by a matrix [m, d_mode]: the mode's size becomes m. One matrix product over
/// views; differentiable. Source: Kolda and Bader, Tensor Decompositions and Applications, 2009, section 2.5.
inline at::Tensor mode_product(const at::Tensor& tensor, const at::Tensor& matrix, int64_t mode) {
  std::vector<int64_t> shape = tensor.sizes().vec();
  int64_t before = 1, after = 1;
  for (int64_t k = 0; k < mode; ++k) before *= tensor.size(k);
  for (int64_t k = mode + 1; k < tensor.dim(); ++k) after *= tensor.size(k);
  const int64_t size = tensor.size(mode);
  shape[static_cast<size_t>(mode)] = matrix.size(0);
  if (after == 1) return at::matmul(tensor.reshape({before, size}), matrix.t()).reshape(shape);
  if (before == 1) return at::matmul(matrix, tensor.reshape({size, after})).reshape(shape);
  return at::matmul(matrix, tensor.reshape({before, size, after})).reshape(shape);
}

/// The first `count` left singular vectors of a matrix, [rows, count], largest first.
///
/// Computed from R^T of A^T = Q R: as accurate as an SVD of A, and nothing as wide as A is written besides R.
inline at::Tensor leading_left_vectors(const at::Tensor& matrix, int64_t count) {
  const at::Tensor r = std::get<1>(at::linalg_qr(matrix.t(), "r"));
  return std::get<0>(at::linalg_svd(r.t(), /*full_matrices=*/false)).slice(1, 0, count);
}

/// The tensor in float64, checked to be decomposable. Errors: no modes, an empty mode, a type that is not real floating
/// point, values that are not finite.
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

namespace detail {

inline void check_sweeps(int64_t sweeps, double tolerance) {
  TORCH_CHECK(sweeps >= 0 && tolerance >= 0.0, "steppe: sweeps and tolerance must be at least 0, got ", sweeps, " and ",
              tolerance);
}

}  // namespace detail

}  // namespace tensorized
STEPPE_NAMESPACE_END
