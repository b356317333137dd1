// Two lists of gradients: their inner products and their linear combination, each in one pass over memory.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Tensor.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/add.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/real.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <steppe/kernels/reference.hpp>
#include <steppe/kernels/task_layout.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels {

/// Sums over all pairs, accumulated in double: 0-dim float64 tensors. Of complex tensors the real parts, Re<conj(x),
/// y>.
struct Products {
  at::Tensor xx, xy, yy;
};

}  // namespace kernels

/// The definition for one pair in ATen operations, for every device, dtype and layout.
namespace reference {

/// What a pair is computed in: its own type, and float for what is narrower.
inline at::ScalarType working_type(const at::Tensor& x, const at::Tensor& y) {
  const bool is_double = x.scalar_type() == at::kDouble || (y.defined() && y.scalar_type() == at::kDouble);
  return is_double ? at::kDouble : at::kFloat;
}

/// A tensor as real numbers in memory that it shares where it can: complex ones have a further dimension of two.
inline at::Tensor as_real(const at::Tensor& x) {
  if (!x.defined() || x.layout() == at::kSparse) return x;
  if (x.layout() != at::kStrided) return as_real(x.to_dense());
  const at::Tensor plain = x.resolve_conj().resolve_neg();
  return plain.is_complex() ? at::view_as_real(plain) : plain;
}

/// The sum of x y over two dense tensors of one shape. Products are taken in float64, and of so many components at a
/// time that the copies in float64 stay small.
inline at::Tensor inner_product(const at::Tensor& x, const at::Tensor& y) {
  constexpr int64_t kTogether = int64_t{1} << 22;
  const bool in_order = kernels::detail::same_memory_order(x, y);
  const int64_t size = x.numel();
  const auto flat = [&](const at::Tensor& of) { return in_order ? of.as_strided({size}, {1}) : of.reshape({size}); };
  const at::Tensor left = flat(x), right = flat(y);
  at::Tensor sum = at::zeros({}, x.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < size; begin += kTogether) {
    const int64_t count = std::min(kTogether, size - begin);
    sum.add_((left.narrow(0, begin, count).to(at::kDouble) * right.narrow(0, begin, count)).sum());
  }
  return sum;
}

/// Two sparse tensors: over the indices that both have.
inline at::Tensor sparse_inner_product(const at::Tensor& x, const at::Tensor& y) {
  const auto values = [](const at::Tensor& of) { return of.coalesce().to(accumulation_type(of)); };
  const at::Tensor left = values(x), right = values(y);
  const at::Tensor common = at::mul(left, right.is_complex() ? right.conj_physical() : right).coalesce();
  return (common.is_complex() ? at::real(common.values()) : common.values()).sum();
}

inline at::Tensor inner_product_of(const at::Tensor& x, const at::Tensor& y) {
  if (x.layout() == at::kSparse && y.layout() == at::kSparse) return sparse_inner_product(x, y);
  const auto dense = [](const at::Tensor& of) { return as_real(of.layout() == at::kSparse ? of.to_dense() : of); };
  return inner_product(dense(x), dense(y));
}

inline at::Tensor squares(const at::Tensor& x) {
  const at::Tensor values = as_real(x.layout() == at::kSparse ? x.coalesce().values() : x);
  // 16-bit numbers would be copied as a whole.
  return values.element_size() == 2 ? inner_product(values, values) : vector_norm(values, 2.0).square();
}

inline kernels::Products products(const at::Tensor& x, const at::Tensor& y) {
  return {squares(x), inner_product_of(x, y), squares(y)};
}

/// One of a device's numbers beside a tensor, in the type that it is multiplied in.
inline at::Tensor coefficient(const at::Tensor& a, const at::Tensor& x, at::ScalarType type) {
  return (a.device().is_cpu() ? a : a.to(x.device())).to(type);
}

/// a x of a sparse tensor, coalesced, in a wider type.
inline at::Tensor scaled_sparse(const at::Tensor& a, const at::Tensor& x, at::ScalarType type) {
  const at::Tensor own = x.coalesce();
  const at::ScalarType wide = x.is_complex() ? at::toComplexType(type) : type;
  const at::Tensor values = own.values().to(wide) * coefficient(a, x, type);
  return at::_sparse_coo_tensor_unsafe(own.indices(), values, own.sizes())._coalesced_(true);
}

inline at::Tensor combine_sparse(const at::Tensor& a, const at::Tensor& x, const at::Tensor& b, const at::Tensor& y) {
  const at::ScalarType type = working_type(x, y);
  at::Tensor sum = scaled_sparse(a, x, type);
  if (y.defined()) sum = (sum + scaled_sparse(b, y, type)).coalesce();
  return sum.to(x.scalar_type()).coalesce();
}

/// to = a x + b y over dense real tensors; rounded to the dtype of `to` once, when it is stored.
inline void combine_into(const at::Tensor& to, const at::Tensor& a, const at::Tensor& x, const at::Tensor& b,
                         const at::Tensor& y) {
  const at::ScalarType type = working_type(x, y);
  const at::Tensor left = x.to(type), factor = coefficient(a, x, type);
  at::Tensor result = to;
  if (y.defined())
    at::add_out(result, left * factor, y.to(type) * coefficient(b, y, type));
  else
    at::mul_out(result, left, factor);
}

}  // namespace reference

namespace kernels::detail {

/// The memory of `out` can take what is computed from `like`.
inline bool fits(const at::Tensor& out, const at::Tensor& like) {
  return out.defined() && out.layout() == at::kStrided && out.is_non_overlapping_and_dense() && !out.is_conj() &&
         !out.is_neg() && out.scalar_type() == like.scalar_type() && out.device() == like.device() &&
         out.sizes() == like.sizes();
}

inline void check_pairs(const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y) {
  TORCH_CHECK(x.size() == y.size(), "steppe: gradients are combined in pairs, but there are ", x.size(), " and ",
              y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    if (!x[i].defined() || !y[i].defined()) continue;
    TORCH_CHECK(x[i].sizes() == y[i].sizes(), "steppe: the two gradients of pair ", i, " have the shapes ",
                x[i].sizes(), " and ", y[i].sizes(), "; they must be the same");
    TORCH_CHECK(x[i].is_complex() == y[i].is_complex(), "steppe: the two gradients of pair ", i, " have the dtypes ",
                x[i].scalar_type(), " and ", y[i].scalar_type(), "; both must be real, or both complex");
  }
}

/// A sum over pairs, in their order, on the device of the first.
class Total {
 public:
  void add(const at::Tensor& value) { sum_ = sum_.defined() ? sum_ + value.to(sum_.device()) : value; }
  at::Tensor value() const { return sum_.defined() ? sum_ : at::zeros({}, at::kDouble); }

 private:
  at::Tensor sum_;
};

}  // namespace kernels::detail

namespace kernels {

/// The sums of x x, x y and y y over all pairs, on the device of the first tensor; none waits for a device. An
/// undefined tensor counts as zeros.
///
/// Errors: lists of different lengths, pairs of different shapes, a complex tensor beside a real one.
inline Products products(const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y) {
  const c10::NoGradGuard no_grad;
  detail::check_pairs(x, y);
  detail::Total xx, xy, yy;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!x[i].defined() && !y[i].defined()) continue;
    const at::Tensor zero =
        at::zeros({}, (x[i].defined() ? x[i] : y[i]).options().dtype(at::kDouble).layout(at::kStrided));
    const bool both = x[i].defined() && y[i].defined();
    xx.add(x[i].defined() ? reference::squares(x[i]) : zero);
    xy.add(both ? reference::inner_product_of(x[i], y[i]) : zero);
    yy.add(y[i].defined() ? reference::squares(y[i]) : zero);
  }
  return {xx.value(), xy.value(), yy.value()};
}

/// The sum of squares of all components, |x|^2 of complex ones: 0-dim float64 on the device of the first tensor.
inline at::Tensor squares(const std::vector<at::Tensor>& x) {
  const c10::NoGradGuard no_grad;
  detail::Total sum;
  for (const at::Tensor& one : x)
    if (one.defined()) sum.add(reference::squares(one));
  return sum.value();
}

/// out = a x + b y for every pair, in float (double for double), rounded once to the dtype of x. An undefined tensor
/// counts as zeros; out[i] is undefined where both are. All else is plain arithmetic: 0 times NaN is NaN.
///
/// Written to out[i] where that is defined, dense and like x[i]; it may be x[i] or y[i] itself, but share no memory
/// with any other tensor here. Else out[i] is a new tensor: sparse where all that is defined is, else dense.
///
/// a and b are 0-dim float64 tensors. They stay on their device unless a tensor on the CPU is multiplied by one.
///
/// Returns the sum of squares of what was stored: 0-dim float64, on the device of the first tensor.
///
/// Errors: as products().
inline at::Tensor combine(const at::Tensor& a, const std::vector<at::Tensor>& x, const at::Tensor& b,
                          const std::vector<at::Tensor>& y, std::vector<at::Tensor>& out) {
  const c10::NoGradGuard no_grad;
  detail::check_pairs(x, y);
  detail::Total stored;
  const size_t count = x.size();
  out.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const bool first = x[i].defined();
    const at::Tensor left = first ? x[i] : y[i], right = first ? y[i] : at::Tensor();
    if (!left.defined()) {
      out[i] = at::Tensor();
      continue;
    }
    const at::Tensor& factor = first ? a : b;
    if (left.layout() == at::kSparse && (!right.defined() || right.layout() == at::kSparse)) {
      out[i] = reference::combine_sparse(factor, left, b, right);
    } else {
      const auto dense = [](const at::Tensor& of) {
        return of.defined() && of.layout() != at::kStrided ? of.to_dense() : of;
      };
      const at::Tensor like = dense(left);
      if (!detail::fits(out[i], like)) out[i] = at::empty_like(like);
      reference::combine_into(reference::as_real(out[i]), factor, reference::as_real(like), b,
                              reference::as_real(dense(right)));
    }
    stored.add(reference::squares(out[i]));
  }
  return stored.value();
}

/// The same with numbers of the host.
inline at::Tensor combine(double a, const std::vector<at::Tensor>& x, double b, const std::vector<at::Tensor>& y,
                          std::vector<at::Tensor>& out) {
  return combine(at::scalar_tensor(a, at::kDouble), x, at::scalar_tensor(b, at::kDouble), y, out);
}

}  // namespace kernels
STEPPE_NAMESPACE_END
