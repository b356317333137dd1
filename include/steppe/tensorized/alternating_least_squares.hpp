// Alternating least squares: one factor's step, and the error without the rebuilt tensor.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <steppe/tensorized/unfolding.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized::detail {

inline constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
inline constexpr double kExact = 1e-12;  ///< an error relative to the tensor's norm that is rounding only

/// The linear least-squares problem of one factor while the others stay: min |T_k - F K^T| over F, [d, m].
struct FactorFit {
  at::Tensor products;  ///< T_k K, [d, m]
  at::Tensor gram;      ///< K^T K, [m, m]

  /// A minimum: F + (T_k K - F K^T K) (K^T K + s I)^-1, the proximal step, with a shift s of rounding only. The part of
  /// F that K does not determine is kept, where a least-norm inverse would set it to zero; the error never rises.
  at::Tensor from(const at::Tensor& factor) const {
    const at::Tensor shift = gram.diagonal().sum() * (4.0 * kEpsilon * static_cast<double>(gram.size(0))) + 1e-300;
    const at::Tensor triangle = at::linalg_cholesky(gram + at::eye(gram.size(0), gram.options()) * shift);
    return factor + at::cholesky_solve((products - at::matmul(factor, gram)).t(), triangle).t();
  }

  /// |T - X|^2 = |T|^2 - 2 <T, X> + |X|^2 for X of this factor.
  double squared_error(const at::Tensor& factor, double size) const {
    return size * size + ((at::matmul(factor, gram) - 2.0 * products) * factor).sum().item<double>();
  }
};

/// |T - X| from the fit of X's last factor. The terms cancel: rounding leaves about 16 epsilon |T|^2 / |T - X|, which
/// is fine for large errors only. Where that could be mistaken for a gain of `tolerance` |T|, 1e-12 |T| at least, the
/// tensor is rebuilt and subtracted instead.
template <class Rebuild>
double error_of(const at::Tensor& tensor, double size, double tolerance, const FactorFit& fit, const at::Tensor& factor,
                Rebuild&& rebuild) {
  const double error = std::sqrt((std::max)(0.0, fit.squared_error(factor, size)));
  if (16.0 * kEpsilon * size <= 0.1 * (std::max)(tolerance, 1e-12) * error) return error;
  return frobenius(tensor - rebuild());
}

}  // namespace tensorized::detail
STEPPE_NAMESPACE_END
