// The definition of the products and combinations of two lists of gradients, pair by pair in ATen operations.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Tensor.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/real.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>

#include <steppe/kernels/dispatch_task.hpp>
#include <steppe/kernels/reference.hpp>
#include <steppe/kernels/task_layout.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// For one pair of every device, dtype and layout.
namespace reference {

inline bool is_sparse(const at::Tensor& x) { return x.layout() == at::kSparse; }

/// Of a dense tensor, as real numbers: complex ones have one more dimension, of two. In the tensor's own memory unless
/// its conjugation is pending.
inline at::Tensor as_real(const at::Tensor& x) {
  const at::Tensor plain = x.resolve_conj().resolve_neg();
  return plain.is_complex() ? at::view_as_real(plain) : plain;
}

inline at::Tensor as_dense(const at::Tensor& x) { return x.layout() == at::kStrided ? x : x.to_dense(); }

/// The sum of x y over dense real tensors of one shape. Products are taken in float64, over few enough components at a
/// time that copies in float64 stay small.
inline at::Tensor sum_of_products(const at::Tensor& x, const at::Tensor& y) {
  constexpr int64_t kTogether = int64_t{1} << 22;
  const bool in_order = kernels::detail::same_memory_order(x, y);
  const int64_t size = x.numel();
  const auto flat = [&](const at::Tensor& of) { return in_order ? of.as_strided({size}, {1}) : of.reshape({size}); };
  const at::Tensor left = flat(x), right = flat(y);
  at::Tensor sum = at::zeros({}, x.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < size; begin += kTogether) {
    const int64_t count = (std::min)(kTogether, size - begin);
    sum.add_((left.narrow(0, begin, count).to(at::kDouble) * right.narrow(0, begin, count)).sum());
  }
  return sum;
}

/// Of two sparse tensors: over the indices that both have.
inline at::Tensor sparse_inner_product(const at::Tensor& x, const at::Tensor& y) {
  const auto wide = [](const at::Tensor& of) { return of.coalesce().to(accumulation_type(of)); };
  const at::Tensor left = wide(x), right = wide(y);
  const at::Tensor common = at::mul(left, right.is_complex() ? right.conj_physical() : right).coalesce();
  return (common.is_complex() ? at::real(common.values()) : common.values()).sum();
}

inline at::Tensor inner_product(const at::Tensor& x, const at::Tensor& y) {
  if (is_sparse(x) && is_sparse(y)) return sparse_inner_product(x, y);
  return sum_of_products(as_real(as_dense(x)), as_real(as_dense(y)));
}

inline at::Tensor squares(const at::Tensor& x) {
  const at::Tensor values = as_real(is_sparse(x) ? x.coalesce().values() : as_dense(x));
  // vector_norm() would copy 16-bit numbers as a whole.
  return values.element_size() == 2 ? sum_of_products(values, values) : vector_norm(values, 2.0).square();
}

/// An undefined tensor counts as zeros; one of the two is defined.
inline kernels::Products products(const at::Tensor& x, const at::Tensor& y) {
  const at::TensorOptions like = at::TensorOptions().dtype(at::kDouble).device((x.defined() ? x : y).device());
  const auto squares_of = [&](const at::Tensor& of) { return of.defined() ? squares(of) : at::zeros({}, like); };
  return {squares_of(x), x.defined() && y.defined() ? inner_product(x, y) : at::zeros({}, like), squares_of(y)};
}

/// Whether the memory of `out` can hold what is computed from `like`.
inline bool fits(const at::Tensor& out, const at::Tensor& like) {
  return out.defined() && out.layout() == at::kStrided && out.is_non_overlapping_and_dense() && !out.is_conj() &&
         !out.is_neg() && out.scalar_type() == like.scalar_type() && out.device() == like.device() &&
         out.sizes() == like.sizes();
}

/// What a pair is computed in: float, or double where one of the two is.
inline at::ScalarType working_type(const at::Tensor& x, const at::Tensor& y) {
  const auto is_double = [](const at::Tensor& of) {
    return of.defined() && at::toRealValueType(of.scalar_type()) == at::kDouble;
  };
  return is_double(x) || is_double(y) ? at::kDouble : at::kFloat;
}

/// a as a factor of x. A number on the host goes into the kernels as it is.
inline at::Tensor factor_of(const at::Tensor& a, const at::Tensor& x, at::ScalarType type) {
  return (a.device().is_cpu() ? a : a.to(x.device())).to(type);
}

inline at::Tensor combine_sparse(const at::Tensor& a, const at::Tensor& x, const at::Tensor& b, const at::Tensor& y) {
  const at::ScalarType type = working_type(x, y);
  const auto scaled = [type](const at::Tensor& by, const at::Tensor& of) {
    const at::Tensor own = of.coalesce();
    const at::Tensor values = own.values().to(of.is_complex() ? at::toComplexType(type) : type);
    return at::_sparse_coo_tensor_unsafe(own.indices(), values * factor_of(by, of, type), own.sizes())
        ._coalesced_(true);
  };
  const at::Tensor left = scaled(a, x);
  return (y.defined() ? (left + scaled(b, y)).coalesce() : left).to(x.scalar_type()).coalesce();
}

/// out = a x + b y. x is defined; an undefined y counts as zeros.
inline void combine(const at::Tensor& a, const at::Tensor& x, const at::Tensor& b, const at::Tensor& y,
                    at::Tensor& out) {
  if (is_sparse(x) && (!y.defined() || is_sparse(y))) {
    out = combine_sparse(a, x, b, y);
    return;
  }
  const at::Tensor own = as_dense(x), left = as_real(own);
  if (!fits(out, own)) out = at::empty_like(own);
  at::Tensor to = as_real(out);
  const at::ScalarType type = working_type(x, y);
  const auto factor = [&](const at::Tensor& of) { return factor_of(of, left, type); };
  // Computed in the type of the operands, and rounded to that of `to` when it is stored.
  if (y.defined())
    at::add_out(to, left.to(type) * factor(a), as_real(as_dense(y)).to(type) * factor(b));
  else
    at::mul_out(to, left.to(type), factor(a));
}

}  // namespace reference
STEPPE_NAMESPACE_END
