// Whether two gradients are the same, or equal up to rounding.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <limits>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step::comparison {

/// A gradient to compare with another one; an undefined one is zero.
inline at::Tensor dense(const at::Tensor& gradient, const at::Tensor& other) {
  if (!gradient.defined()) return at::zeros_like(dense(other, other));
  return gradient.is_sparse() ? gradient.detach().to_dense() : gradient.detach();
}

inline bool equal(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() && !b.defined()) return true;
  const c10::NoGradGuard no_grad;
  const at::Tensor x = dense(a, b), y = dense(b, a);
  return x.eq(y).logical_or(x.ne(x).logical_and(y.ne(y))).all().item<bool>();
}

/// The largest difference of finite components.
inline double difference(const at::Tensor& a, const at::Tensor& b) {
  const c10::NoGradGuard no_grad;
  const at::Tensor apart = dense(a, b).sub(dense(b, a)).abs();
  return apart.numel() == 0 ? 0.0 : at::where(apart.isfinite(), apart, at::zeros_like(apart)).amax().item<double>();
}

inline double rounding_of(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
    case at::kComplexDouble:
      return std::numeric_limits<double>::epsilon();
    case at::kHalf:
      return 0x1p-10;
    case at::kBFloat16:
      return 0x1p-7;
    default:
      return static_cast<double>(std::numeric_limits<float>::epsilon());
  }
}

/// Finite components within 1000 roundings of the largest, all others equal.
inline bool close(const at::Tensor& a, const at::Tensor& b) {
  const c10::NoGradGuard no_grad;
  const at::Tensor x = dense(a, b), y = dense(b, a), finite = y.isfinite(), zero = at::zeros_like(y);
  if (!comparison::equal(at::where(finite, zero, x), at::where(finite, zero, y))) return false;
  const at::Tensor sizes = at::where(finite, y, zero).abs();
  const double largest = sizes.numel() == 0 ? 0.0 : sizes.amax().item<double>();
  return x.isfinite().eq(finite).all().item<bool>() &&
         difference(a, b) <= 1000.0 * rounding_of(y.scalar_type()) * largest;
}

}  // namespace step::comparison
STEPPE_NAMESPACE_END
