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
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <steppe/tensorized/alternating_least_squares.hpp>
#include <steppe/tensorized/contraction.hpp>
#include <steppe/tensorized/surplus_ranks.hpp>
#include <steppe/tensorized/tensor_train.hpp>
#include <steppe/tensorized/unfolding.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// T(i_1..i_n) = trace(G_1(i_1) G_2(i_2) ... G_n(i_n)): core k is [r_{k-1}, d_k, r_k], r_n = r_0.
struct TensorRing {
  std::vector<at::Tensor> cores;  ///< one per mode
  int64_t sweeps = 0;             ///< of ALS that were made
  double error = 0.0;             ///< |tensor - full()| / |tensor|, computed in float64; 0 for a tensor of zeros

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

/// Options of tensor_ring().
struct TensorRingOptions {
  /// ALS sweeps at most; 0: TR-SVD alone.
  TORCH_ARG(int64_t, sweeps) = 100;
  /// Sweeps end when one lowers the error by less than this share of the tensor's norm.
  TORCH_ARG(double, tolerance) = 1e-8;
};

namespace detail {

/// TR-SVD of a float64 tensor that begins at one mode; ranks are upper limits, and those of singular values that are
/// only rounding are left out. All cores but the one before that mode have orthonormal columns, or zeros in a place of
/// the first that stays empty.
inline TensorRing ring_by_svd(const at::Tensor& wide, c10::IntArrayRef ranks, size_t mode) {
  const size_t modes = ranks.size();
  std::vector<int64_t> order;
  for (size_t k = 0; k < modes; ++k) order.push_back(static_cast<int64_t>((mode + k) % modes));
  const at::Tensor turned = wide.permute(order).contiguous();
  const auto rank = [&](size_t k) { return ranks[(mode + k) % modes]; };
  const auto [u, s, v] = at::linalg_svd(unfold(turned, 0), /*full_matrices=*/false);
  const int64_t d = turned.size(0), values = numerical_rank(s), first = (std::min)(rank(1), values);
  const int64_t closing = (std::min)(rank(0), (values + first - 1) / first);
  const int64_t kept = (std::min)(values, closing * first), empty = closing * first - kept;
  // Component c is at (c / first, c % first) of the grid; places that stay empty hold zeros.
  const at::Tensor columns = at::constant_pad_nd(u.slice(1, 0, kept), {0, empty}, 0);
  const at::Tensor rows =
      at::constant_pad_nd(s.slice(0, 0, kept).unsqueeze(1) * v.slice(0, 0, kept), {0, 0, 0, empty}, 0);
  std::vector<at::Tensor> chain = {columns.reshape({d, closing, first}).transpose(0, 1)};
  const at::Tensor rest = rows.reshape({closing, first, -1}).permute({1, 2, 0});
  for (at::Tensor& core :
       cores_by_svd(rest, turned.sizes().slice(1), first, closing,
                    [&](size_t k, const at::Tensor&of) { return (std::min)(rank(k + 2), numerical_rank(of)); }))
    chain.push_back(std::move(core));
  TensorRing ring;
  for (size_t k = 0; k < modes; ++k) ring.cores.push_back(chain[(k + modes - mode) % modes]);
  return ring;
}

/// ALS on one tensor. Its products with all cores but one are made in the cheapest order; the Gram matrix comes from
/// the other cores' matrices sum_i G(i) x G(i), [r_k^2, r_{k+1}^2], multiplied around the ring.
class RingSweeps {
 public:
  RingSweeps(const at::Tensor& tensor, const std::vector<at::Tensor>& cores) : tensor_(tensor) {
    LetterSizes sizes;
    std::string all;
    const size_t modes = cores.size();
    const auto letters = [&](size_t k) {
      return std::string{static_cast<char>('A' + k), all[k], static_cast<char>('A' + (k + 1) % modes)};
    };
    for (size_t k = 0; k < modes; ++k) {
      all += static_cast<char>('a' + k);
      sizes[all[k]] = cores[k].size(1);
      sizes[static_cast<char>('A' + k)] = cores[k].size(0);
    }
    for (size_t but = 0; but < modes; ++but) {
      std::vector<std::string> operands = {all};
      for (size_t k = 0; k < modes; ++k)
        if (k != but) operands.push_back(letters(k));
      products_.emplace_back(std::move(operands), std::string{letters(but)[1], letters(but)[0], letters(but)[2]});
      orders_.push_back(products_.back().cheapest(sizes));
    }
  }

  /// One sweep; the fit of the last core as it was found.
  FactorFit sweep(std::vector<at::Tensor>& cores) const {
    const size_t modes = cores.size();
    std::vector<at::Tensor> behind(modes);  // of the cores after k
    for (size_t k = modes; k-- > 1;) behind[k - 1] = times(squared(cores[k]), behind[k]);
    at::Tensor before;
    FactorFit fit;
    for (size_t k = 0; k < modes; ++k) {
      std::vector<at::Tensor> operands = {tensor_};
      for (size_t j = 0; j < modes; ++j)
        if (j != k) operands.push_back(cores[j]);
      const int64_t left = cores[k].size(0), right = cores[k].size(2);
      const at::Tensor around = behind[k].defined() ? times(behind[k], before) : before;
      fit.gram = around.reshape({right, right, left, left}).permute({2, 0, 3, 1}).reshape({left * right, -1});
      fit.products = products_[k].run(orders_[k], operands).reshape({-1, left * right});
      cores[k] = fit.from(as_factor(cores[k])).reshape({-1, left, right}).transpose(0, 1).contiguous();
      before = before.defined() ? times(before, squared(cores[k])) : squared(cores[k]);
    }
    return fit;
  }

  /// [d, r_k r_{k+1}]
  static at::Tensor as_factor(const at::Tensor& core) { return core.transpose(0, 1).reshape({core.size(1), -1}); }

 private:
  static at::Tensor times(const at::Tensor& a, const at::Tensor& b) { return b.defined() ? at::matmul(a, b) : a; }

  static at::Tensor squared(const at::Tensor& core) {
    const int64_t left = core.size(0), right = core.size(2);
    const at::Tensor flat = core.permute({0, 2, 1}).reshape({left * right, -1});
    return at::matmul(flat, flat.t())
        .reshape({left, right, left, right})
        .permute({0, 2, 1, 3})
        .reshape({left * left, right * right});
  }

  const at::Tensor tensor_;
  std::vector<Contraction> products_;
  std::vector<Contraction::Order> orders_;
};

/// The shapes of a ring's cores of given ranks.
inline std::vector<std::vector<int64_t>> ring_shapes(c10::IntArrayRef modes, c10::IntArrayRef ranks) {
  std::vector<std::vector<int64_t>> shapes;
  for (size_t k = 0; k < ranks.size(); ++k) shapes.push_back({ranks[k], modes[k], ranks[(k + 1) % ranks.size()]});
  return shapes;
}

/// The ranks that are enough for every ring of the given ones, each at most the product of a neighbouring mode and the
/// rank after that. Even these may be more than a tensor needs.
inline std::vector<int64_t> sufficient_ring_ranks(c10::IntArrayRef modes, c10::IntArrayRef asked) {
  std::vector<int64_t> ranks = asked.vec();
  const size_t n = ranks.size();
  int64_t all = 1;
  for (const int64_t d : modes) all *= d;
  for (int64_t& rank : ranks) rank = (std::min)(rank, all);
  for (bool settled = false; !settled;) {
    settled = true;
    for (size_t k = 0; k < n; ++k) {
      const size_t last = (k + n - 1) % n;
      const int64_t most = (std::min)(ranks[last] * modes[last], modes[k] * ranks[(k + 1) % n]);
      if (ranks[k] <= most) continue;
      ranks[k] = most;
      settled = false;
    }
  }
  return ranks;
}

/// tensor_ring() of a float64 tensor, without the warning about ranks.
inline TensorRing ring_within_ranks(const at::Tensor& wide, c10::IntArrayRef ranks, int64_t sweeps, double tolerance) {
  if (wide.dim() == 1) return {{wide.reshape({1, -1, 1})}};
  const double size = frobenius(wide);
  TensorRing found;
  double before = 0.0;
  for (size_t mode = 0; mode < ranks.size() && (mode == 0 || before > kExact * size); ++mode) {
    TensorRing start = ring_by_svd(wide, ranks, mode);
    const double error = frobenius(wide - start.full());
    if (mode > 0 && error >= before) continue;
    found = std::move(start);
    before = error;
  }
  if (before > kExact * size && sweeps > 0 && wide.dim() <= 13) {
    const std::vector<int64_t> all = sufficient_ring_ranks(wide.sizes(), ranks);
    found.cores = grown_chain(std::move(found.cores), ring_shapes(wide.sizes(), all));
    const RingSweeps als(wide, found.cores);
    while (found.sweeps < sweeps) {
      const FactorFit fit = als.sweep(found.cores);
      ++found.sweeps;
      const at::Tensor last = RingSweeps::as_factor(found.cores.back());
      const double after = error_of(wide, size, tolerance, fit, last, [&] { return found.full(); });
      if (before - after <= tolerance * size) break;
      before = after;
    }
  }
  found.error = size > 0.0 ? frobenius(wide - found.full()) / size : 0.0;
  return found;
}

}  // namespace detail

/// Tensor-ring decomposition by TR-SVD and alternating least squares (ALS; both Zhao et al., arXiv 1606.05535),
/// computed in float64 and returned in the tensor's type. TR-SVD: the SVD of one mode against the others gives up to
/// r_k * r_{k+1} components, laid out as r_k by r_{k+1}; the remaining chain is cut by SVDs as in a tensor train, and
/// the square of the error is at most the sum of those that the SVDs discard. It is made from every mode and the best
/// one taken; where that is exact, as with every rank that of a tensor train at full rank, it is the result. Else the
/// ring is grown to all its ranks and swept by ALS, no sweep of which raises the error.
///
/// The ranks are upper limits: where lower ones are enough, they are used, with a warning; TR-SVD without sweeps may
/// have lower ones in any case. ALS may stop at a local minimum. Cost: up to n times n - 1 SVDs as of tensor_train,
/// with one rank times its chain; of a sweep, for each mode the tensor's entries times about two of the ranks, and r^6
/// for ranks r. Memory: four copies in float64 and n matrices of r^4. Tensors of more than 13 modes get TR-SVD alone.
/// Errors: ranks below 1, another number of ranks than modes, entries that are not finite.
///
///     const auto ring = steppe::tensorized::tensor_ring(tensor, {3, 3, 3, 3});
///     const at::Tensor again = ring.full();  // ring.cores, ring.ranks(), ring.error
inline TensorRing tensor_ring(const at::Tensor& tensor, c10::IntArrayRef ranks, const TensorRingOptions& options = {}) {
  const c10::NoGradGuard no_grad;
  const at::Tensor wide = decomposable(tensor);
  TORCH_CHECK(static_cast<int64_t>(ranks.size()) == wide.dim(), "steppe: a tensor ring of ", wide.dim(),
              " modes needs as many ranks, got ", ranks);
  for (size_t k = 0; k < ranks.size(); ++k)
    TORCH_CHECK(ranks[k] >= 1, "steppe: tensor-ring rank ", ranks[k], " before mode ", k, " must be at least 1");
  detail::check_sweeps(options.sweeps(), options.tolerance());
  TensorRing found = detail::ring_within_ranks(wide, ranks, options.sweeps(), options.tolerance());
  const bool exact = found.error <= detail::kExact;
  detail::warn_of_fewer_ranks(
      "tensor-ring", ranks, exact ? found.ranks() : detail::sufficient_ring_ranks(wide.sizes(), ranks), tensor.sizes());
  for (at::Tensor& core : found.cores) core = core.to(tensor.scalar_type(), false, /*copy=*/true).contiguous();
  return found;
}

}  // namespace tensorized
STEPPE_NAMESPACE_END
