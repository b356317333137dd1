// Tensor-train decomposition: a chain of cores, one per mode.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <c10/core/GradMode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include <steppe/tensorized/surplus_ranks.hpp>
#include <steppe/tensorized/unfolding.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// T(i_1..i_n) = G_1(i_1) G_2(i_2) ... G_n(i_n), a product of matrices: core k is [r_{k-1}, d_k, r_k], r_0 = r_n = 1.
struct TensorTrain {
  std::vector<at::Tensor> cores;  ///< one per mode

  /// The ranks between the cores, r_1..r_{n-1}.
  std::vector<int64_t> ranks() const {
    std::vector<int64_t> between;
    for (size_t k = 1; k < cores.size(); ++k) between.push_back(cores[k].size(0));
    return between;
  }

  /// The tensor, [d_1, ..., d_n]. Differentiable with respect to the cores.
  at::Tensor full() const {
    std::vector<int64_t> shape;
    at::Tensor product;
    for (const at::Tensor& core : cores) {
      shape.push_back(core.size(1));
      const at::Tensor matrix = core.reshape({core.size(0), -1});
      product = (product.defined() ? at::matmul(product, matrix) : matrix).reshape({-1, core.size(2)});
    }
    return product.view(shape);
  }
};

namespace detail {

/// How many singular values, largest first, are more than rounding; 1 at least.
inline int64_t numerical_rank(const at::Tensor& s) {
  const double rounding = 4.0 * std::numeric_limits<double>::epsilon() * static_cast<double>(s.numel());
  return std::max<int64_t>(1, s.gt(s.amax() * rounding).sum().item<int64_t>());
}

/// The ranks that are enough for every train of the given ones, r_k <= r_{k-1} d_k and r_k <= d_{k+1} r_{k+1}.
inline std::vector<int64_t> sufficient_train_ranks(c10::IntArrayRef modes, c10::IntArrayRef asked) {
  std::vector<int64_t> ranks = asked.vec();
  for (size_t k = 0; k < ranks.size(); ++k) ranks[k] = (std::min)(ranks[k], (k == 0 ? 1 : ranks[k - 1]) * modes[k]);
  for (size_t k = ranks.size(); k-- > 0;)
    ranks[k] = (std::min)(ranks[k], (k + 1 == ranks.size() ? 1 : ranks[k + 1]) * modes[k + 1]);
  return ranks;
}

/// Cuts cores off the front of a tensor by SVDs: `rest` is [r * d_1 * ... * d_n * end] in any shape, the last core is
/// [r_{n-1}, d_n, end]. rank_of(k, s) returns how many of the singular values s are kept between modes k and k + 1.
template <class RankOf>
std::vector<at::Tensor> cores_by_svd(at::Tensor rest, c10::IntArrayRef modes, int64_t r, int64_t end,
                                     RankOf&& rank_of) {
  std::vector<at::Tensor> cores;
  for (size_t k = 0; k + 1 < modes.size(); ++k) {
    const auto [u, s, v] = at::linalg_svd(rest.reshape({r * modes[k], -1}), /*full_matrices=*/false);
    const int64_t kept = rank_of(k, s);
    cores.push_back(u.slice(1, 0, kept).reshape({r, modes[k], kept}));
    rest = s.slice(0, 0, kept).unsqueeze(1) * v.slice(0, 0, kept);
    r = kept;
  }
  cores.push_back(rest.reshape({r, modes.back(), end}));
  return cores;
}

/// TT-SVD of a float64 tensor; ranks are upper limits, and those of singular values that are only rounding are left
/// out.
inline std::vector<at::Tensor> train_of_needed_ranks(const at::Tensor& wide, c10::IntArrayRef ranks) {
  return cores_by_svd(wide, wide.sizes(), 1, 1,
                      [&](size_t k, const at::Tensor& s) { return (std::min)(ranks[k], numerical_rank(s)); });
}

inline TensorTrain as_type_of(const at::Tensor& tensor, std::vector<at::Tensor> cores) {
  for (at::Tensor& core : cores) core = core.to(tensor.scalar_type()).contiguous();
  return {std::move(cores)};
}

}  // namespace detail

/// Tensor-train decomposition of given ranks by TT-SVD (Oseledets, 2011), computed in float64 and returned in the
/// tensor's type. The error is at most sqrt(sum_k sum_{i > r_k} s_k,i^2), s_k the singular values of the tensor as a
/// matrix of its first k modes against the others; at full rank the tensor is rebuilt to rounding. All cores but the
/// last are orthonormal.
///
/// A rank higher than a chain of these modes can need is lowered to that, with a warning. Cost: n - 1 SVDs, the first
/// of [d_1, the rest]; memory: three copies in float64. Errors: ranks below 1, another number of ranks than modes less
/// one, entries that are not finite.
///
///     const auto train = steppe::tensorized::tensor_train(tensor, {4, 4});
///     const at::Tensor again = train.full();  // train.cores
inline TensorTrain tensor_train(const at::Tensor& tensor, c10::IntArrayRef ranks) {
  const c10::NoGradGuard no_grad;
  const at::Tensor wide = decomposable(tensor);
  TORCH_CHECK(static_cast<int64_t>(ranks.size()) == wide.dim() - 1, "steppe: a tensor train of ", wide.dim(),
              " modes needs ", wide.dim() - 1, " ranks, got ", ranks);
  for (size_t k = 0; k < ranks.size(); ++k)
    TORCH_CHECK(ranks[k] >= 1, "steppe: tensor-train rank ", ranks[k], " between modes ", k, " and ", k + 1,
                " must be at least 1");
  const std::vector<int64_t> taken = detail::sufficient_train_ranks(wide.sizes(), ranks);
  detail::warn_of_fewer_ranks("tensor-train", ranks, taken, tensor.sizes());
  return detail::as_type_of(
      tensor, detail::cores_by_svd(wide, wide.sizes(), 1, 1, [&](size_t k, const at::Tensor&) { return taken[k]; }));
}

/// The same with the smallest ranks of TT-SVD that keep the error within `error` times the tensor's norm. Errors: an
/// error that is not from 0 to below 1.
///
///     const auto train = steppe::tensorized::tensor_train_within(tensor, /*error=*/0.01);
inline TensorTrain tensor_train_within(const at::Tensor& tensor, double error) {
  const c10::NoGradGuard no_grad;
  const at::Tensor wide = decomposable(tensor);
  TORCH_CHECK(error >= 0.0 && error < 1.0, "steppe: the error of a tensor train must be from 0 to below 1, got ",
              error);
  const double steps = static_cast<double>(std::max<int64_t>(1, wide.dim() - 1));
  const double allowed = error * error * wide.square().sum().item<double>() / steps;
  const auto smallest = [&](size_t, const at::Tensor& s) {
    const at::Tensor lost = s.square().flip(0).cumsum(0);  // of the last i values
    return std::max<int64_t>(1, s.numel() - (lost <= allowed).sum().item<int64_t>());
  };
  return detail::as_type_of(tensor, detail::cores_by_svd(wide, wide.sizes(), 1, 1, smallest));
}

}  // namespace tensorized
STEPPE_NAMESPACE_END
