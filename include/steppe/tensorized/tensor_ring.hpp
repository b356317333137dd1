// Tensor-ring decomposition: a closed chain of cores, one per mode.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensordot.h>
#include <c10/core/GradMode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include <steppe/tensorized/tensor_train.hpp>
#include <steppe/tensorized/unfolding.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// T(i_1..i_n) = trace(G_1(i_1) G_2(i_2) ... G_n(i_n)): core k is [r_{k-1}, d_k, r_k], r_n = r_0.
struct TensorRing {
  std::vector<at::Tensor> cores;

  /// The ranks before each core, r_0..r_{n-1}; r_0 also closes the ring.
  std::vector<int64_t> ranks() const {
    std::vector<int64_t> before;
    for (const at::Tensor& core : cores) before.push_back(core.size(0));
    return before;
  }

  /// The tensor, [d_1, ..., d_n]. Differentiable with respect to the cores.
  at::Tensor full() const {
    if (cores.size() == 1) return cores[0].diagonal(0, 0, 2).sum(-1);
    std::vector<int64_t> shape;
    at::Tensor product;  // [r_0, d_1 * ... * d_k, r_k]
    for (size_t k = 0; k < cores.size(); ++k) {
      const at::Tensor& core = cores[k];
      shape.push_back(core.size(1));
      if (k == 0) {
        product = core;
      } else if (k + 1 < cores.size()) {
        const at::Tensor grown = at::matmul(product.reshape({-1, core.size(0)}), core.reshape({core.size(0), -1}));
        product = grown.reshape({cores[0].size(0), -1, core.size(2)});
      } else {
        product = at::tensordot(product, core, {2, 0}, {0, 2});
      }
    }
    return product.reshape(shape);
  }
};

/// Tensor-ring decomposition by TR-SVD (Zhao et al., arXiv 1606.05535), computed in float64 and returned in the
/// tensor's type. The SVD of the first mode against the others gives up to r_0 * r_1 components, laid out as r_0 by
/// r_1; the remaining chain is cut by SVDs as in a tensor train. The squares of what each SVD discards add up to that
/// of the error; where nothing is discarded, as with every rank that of a tensor train at full rank, the tensor is
/// rebuilt to rounding. All cores but the last have orthonormal columns, or zeros in a place of the
/// first that stays empty.
///
/// The ranks are upper limits: the first two shrink where the first mode has fewer components than r_0 * r_1, a later
/// one where its matrix has. Cost and memory: as tensor_train, with r_0 times its chain. Errors: ranks below 1, another
/// number of ranks than modes, entries that are not finite.
///
///     const auto ring = steppe::tensorized::tensor_ring(tensor, {3, 3, 3, 3});
///     const at::Tensor again = ring.full();  // ring.cores, ring.ranks()
inline TensorRing tensor_ring(const at::Tensor& tensor, c10::IntArrayRef ranks) {
  const c10::NoGradGuard no_grad;
  const at::Tensor wide = decomposable(tensor);
  TORCH_CHECK(static_cast<int64_t>(ranks.size()) == wide.dim(), "steppe: a tensor ring of ", wide.dim(),
              " modes needs as many ranks, got ", ranks);
  for (size_t k = 0; k < ranks.size(); ++k)
    TORCH_CHECK(ranks[k] >= 1, "steppe: tensor-ring rank ", ranks[k], " before mode ", k, " must be at least 1");
  if (wide.dim() == 1) return {{tensor.detach().reshape({1, -1, 1}).clone()}};
  const auto [u, s, v] = at::linalg_svd(unfold(wide, 0), /*full_matrices=*/false);
  const int64_t d = wide.size(0), first = std::min(ranks[1], s.numel());
  const int64_t closing = std::min(ranks[0], (s.numel() + first - 1) / first);
  const int64_t kept = std::min(s.numel(), closing * first), empty = closing * first - kept;
  // Component c is at (c / first, c % first) of the grid; places that stay empty hold zeros.
  const at::Tensor columns = at::constant_pad_nd(u.slice(1, 0, kept), {0, empty}, 0);
  const at::Tensor rows =
      at::constant_pad_nd(s.slice(0, 0, kept).unsqueeze(1) * v.slice(0, 0, kept), {0, 0, 0, empty}, 0);
  std::vector<at::Tensor> cores = {columns.reshape({d, closing, first}).transpose(0, 1)};
  const at::Tensor rest = rows.reshape({closing, first, -1}).permute({1, 2, 0});
  for (at::Tensor& core :
       detail::cores_by_svd(rest, wide.sizes().slice(1), first, closing,
                            [&](size_t k, const at::Tensor&values) { return std::min(ranks[k + 2], values.numel()); }))
    cores.push_back(std::move(core));
  for (at::Tensor& core : cores) core = core.to(tensor.scalar_type()).contiguous();
  return {std::move(cores)};
}

}  // namespace tensorized
STEPPE_NAMESPACE_END
