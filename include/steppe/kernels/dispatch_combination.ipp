// Which pairs the kernels support, and how the others are computed.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Tensor.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <steppe/kernels/cpu/combination.hpp>
#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/kernels/dispatch_threads.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/reference_combination.hpp>
#include <steppe/kernels/task_layout.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::detail {

inline void check_pairs(const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y) {
  TORCH_CHECK(x.size() == y.size(), "steppe: gradients are combined in pairs, but there are ", x.size(), " and ",
              y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    if (!x[i].defined() || !y[i].defined()) continue;
    TORCH_CHECK(x[i].sizes() == y[i].sizes(), "steppe: the two gradients of pair ", i, " have the shapes ",
                x[i].sizes(), " and ", y[i].sizes(), "; they must be the same");
    TORCH_CHECK(x[i].is_complex() == y[i].is_complex(), "steppe: the two gradients of pair ", i, " have the dtypes ",
                x[i].scalar_type(), " and ", y[i].scalar_type(), "; both must be real, or both complex");
    TORCH_CHECK(x[i].device() == y[i].device(), "steppe: the two gradients of pair ", i, " are on ", x[i].device(),
                " and ", y[i].device(), "; they must be on one device");
  }
}

inline at::Device device_of(const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i].defined()) return x[i].device();
    if (y[i].defined()) return y[i].device();
  }
  return at::kCPU;
}

/// A sum over pairs on one device: of the CPU kernels' results, and of tensors in their order.
class Total {
 public:
  explicit Total(at::Device device) : device_(device) {}

  void add(const at::Tensor& value) { sum_ = sum_.defined() ? sum_ + value.to(device_) : value.to(device_); }

  /// Nothing is copied from the host: a copy would wait for the device.
  at::Tensor with(double of_kernels) const {
    if (sum_.defined() && exact::is_zero(of_kernels)) return sum_;
    const at::Tensor host = at::full({}, of_kernels, at::TensorOptions().dtype(at::kDouble).device(device_));
    return sum_.defined() ? sum_ + host : host;
  }

 private:
  at::Device device_;
  at::Tensor sum_;
};

/// The pairs that the CPU kernels support; holds what must live until they have run.
class FusedPairs {
 public:
  /// Returns false if they do not support it. One of the two may be undefined. Where y has another order of memory than
  /// x, or one is not dense, a copy is made.
  bool take(const at::Tensor& x, const at::Tensor& y) {
    cpu::Pair pair;
    const at::Tensor& like = x.defined() ? x : y;
    if (!has_format(like, pair.format)) return false;
    if (x.defined() && y.defined() && (y.scalar_type() != x.scalar_type() || !has_format(y, pair.format))) return false;
    const at::Tensor plain = like.resolve_conj().resolve_neg();
    order_ = plain.is_non_overlapping_and_dense() ? plain : plain.contiguous();
    if (x.defined()) pair.x = memory_of(order_);
    if (y.defined()) pair.y = memory_of(x.defined() ? in_order(y) : order_);
    pair.size = order_.numel() * (order_.is_complex() ? 2 : 1);
    components_ += pair.size;
    pairs_.push_back(pair);
    return true;
  }

  /// Sets where the combination of the last pair is written; a new tensor if `out` does not fit.
  void send_to(at::Tensor& out) {
    if (reference::fits(out, order_))
      out.unsafeGetTensorImpl()->bump_version();
    else
      out = at::empty_like(order_);
    at::Tensor target = out;
    if (!same_memory_order(order_, out)) detours_.emplace_back(out, target = at::empty_like(order_));
    pairs_.back().out = memory_of(target);
  }

  bool empty() const { return pairs_.empty(); }

  cpu::ProductSums products() const {
    const AtenThreads threads(components_);
    return cpu::PairPass<AtenThreads>(pairs_, threads).products();
  }

  double combine(double a, double b) {
    const AtenThreads threads(components_);
    const double squares = cpu::PairPass<AtenThreads>(pairs_, threads).combine(a, b);
    for (auto& [out, computed] : detours_) out.copy_(computed);
    return squares;
  }

 private:
  static bool has_format(const at::Tensor& x, Format& format) {
    return x.device().is_cpu() && x.layout() == at::kStrided && format_of(at::toRealValueType(x.scalar_type()), format);
  }

  at::Tensor in_order(const at::Tensor& y) const {
    const at::Tensor plain = y.resolve_conj().resolve_neg();
    return same_memory_order(order_, plain) ? plain : at::empty_like(order_).copy_(plain);
  }

  void* memory_of(const at::Tensor& x) {
    kept_.push_back(x);
    return x.data_ptr();
  }

  std::vector<cpu::Pair> pairs_;
  std::vector<at::Tensor> kept_;
  std::vector<std::pair<at::Tensor, at::Tensor>> detours_;  ///< copies: the second into the first
  at::Tensor order_;                                        ///< of the last pair: the one that gives the order
  int64_t components_ = 0;
};

}  // namespace kernels::detail

namespace kernels {

STEPPE_INLINE Products products(const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y) {
  const c10::NoGradGuard no_grad;
  detail::check_pairs(x, y);
  const at::Device device = detail::device_of(x, y);
  detail::Total xx(device), xy(device), yy(device);
  detail::FusedPairs fused;
  for (size_t i = 0; i < x.size(); ++i) {
    if ((!x[i].defined() && !y[i].defined()) || fused.take(x[i], y[i])) continue;
    const Products one = reference::products(x[i], y[i]);
    xx.add(one.xx);
    xy.add(one.xy);
    yy.add(one.yy);
  }
  const cpu::ProductSums sums = fused.products();
  return {xx.with(sums.xx), xy.with(sums.xy), yy.with(sums.yy)};
}

STEPPE_INLINE at::Tensor squares(const std::vector<at::Tensor>& x) {
  return products(x, std::vector<at::Tensor>(x.size())).xx;
}

STEPPE_INLINE at::Tensor combine(const at::Tensor& a, const std::vector<at::Tensor>& x, const at::Tensor& b,
                                 const std::vector<at::Tensor>& y, std::vector<at::Tensor>& out) {
  const c10::NoGradGuard no_grad;
  TORCH_CHECK(a.dim() == 0 && b.dim() == 0, "steppe: the factors of a combination are tensors without dimensions, got ",
              a.sizes(), " and ", b.sizes());
  detail::check_pairs(x, y);
  detail::Total stored(detail::device_of(x, y));
  detail::FusedPairs fused;
  out.resize(x.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const at::Tensor left = x[i], right = y[i];  // `out` may be the list that they are in
    if (!left.defined() && !right.defined()) {
      out[i] = at::Tensor();
    } else if (fused.take(left, right)) {
      fused.send_to(out[i]);
    } else {
      if (left.defined())
        reference::combine(a, left, b, right, out[i]);
      else
        reference::combine(b, right, a, left, out[i]);
      stored.add(reference::squares(out[i]));
    }
  }
  return stored.with(fused.empty() ? 0.0 : fused.combine(a.item<double>(), b.item<double>()));
}

STEPPE_INLINE at::Tensor combine(double a, const std::vector<at::Tensor>& x, double b, const std::vector<at::Tensor>& y,
                                 std::vector<at::Tensor>& out) {
  return combine(at::scalar_tensor(a, at::kDouble), x, at::scalar_tensor(b, at::kDouble), y, out);
}

}  // namespace kernels
STEPPE_NAMESPACE_END
