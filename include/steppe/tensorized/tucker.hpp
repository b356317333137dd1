// Tucker decomposition: a small core and one matrix per mode.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include <steppe/tensorized/surplus_ranks.hpp>
#include <steppe/tensorized/unfolding.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// T = core x_1 U_1 x_2 U_2 ... : the core has the ranks as its shape, factor k is [d_k, r_k].
struct TuckerTensor {
  at::Tensor core;                  ///< the ranks as its shape; the mode's size where a mode has no factor
  std::vector<at::Tensor> factors;  ///< [d_k, r_k]; orthonormal columns from tucker()
  std::vector<int64_t> modes;       ///< the mode that each factor belongs to; empty: factor k belongs to mode k
  int64_t sweeps = 0;               ///< of HOOI that were made

  /// The tensor, [d_1, ..., d_n]. Differentiable with respect to core and factors.
  at::Tensor full() const {
    at::Tensor tensor = core;
    for (size_t k = 0; k < factors.size(); ++k)
      tensor = mode_product(tensor, factors[k], modes.empty() ? static_cast<int64_t>(k) : modes[k]);
    return tensor;
  }
};

/// Options of tucker().
struct TuckerOptions {
  /// HOOI sweeps at most; 0: the higher-order SVD alone.
  TORCH_ARG(int64_t, sweeps) = 25;
  /// Sweeps end when one lowers the error by less than this share of the tensor's norm.
  TORCH_ARG(double, tolerance) = 1e-10;
  /// The modes that get a factor, one rank for each; empty: all. The core keeps the others' sizes.
  TORCH_ARG(std::vector<int64_t>, modes);
};

namespace detail {

/// The ranks that are enough for every Tucker tensor of the given ones: no unfolding of tensor or core has more rows
/// than columns. `modes`: the mode of each rank.
inline std::vector<int64_t> sufficient_tucker_ranks(c10::IntArrayRef shape, c10::IntArrayRef modes,
                                                    c10::IntArrayRef asked) {
  std::vector<int64_t> ranks = asked.vec();
  std::vector<int64_t> core = shape.vec();
  const auto size = [&](size_t k) -> int64_t& { return core[static_cast<size_t>(modes[k])]; };
  for (size_t k = 0; k < ranks.size(); ++k) size(k) = ranks[k] = (std::min)(ranks[k], size(k));
  for (bool settled = false; !settled;) {
    settled = true;
    for (size_t k = 0; k < ranks.size(); ++k) {
      int64_t others = 1;
      for (const int64_t d : core) others *= d;
      others /= ranks[k];
      if (ranks[k] <= others) continue;
      size(k) = ranks[k] = others;
      settled = false;
    }
  }
  return ranks;
}

inline std::vector<int64_t> tucker_modes(const at::Tensor& tensor, c10::IntArrayRef ranks,
                                         const TuckerOptions& options) {
  std::vector<int64_t> modes = options.modes();
  if (modes.empty()) {
    modes.resize(static_cast<size_t>(tensor.dim()));
    std::iota(modes.begin(), modes.end(), int64_t{0});
  }
  TORCH_CHECK(ranks.size() == modes.size(), "steppe: a Tucker decomposition of ", modes.size(),
              " modes needs as many ranks, got ", ranks);
  for (size_t k = 0; k < modes.size(); ++k) {
    TORCH_CHECK(modes[k] >= 0 && modes[k] < tensor.dim(), "steppe: there is no mode ", modes[k],
                " in a tensor of shape ", tensor.sizes());
    TORCH_CHECK(std::count(modes.begin(), modes.end(), modes[k]) == 1, "steppe: mode ", modes[k],
                " of a Tucker decomposition is named twice");
    TORCH_CHECK(ranks[k] >= 1, "steppe: Tucker rank ", ranks[k], " of mode ", modes[k], " must be at least 1");
  }
  return modes;
}

/// The tensor multiplied by the transposes of all factors but the k-th.
inline at::Tensor projected(at::Tensor tensor, const TuckerTensor& on, size_t but) {
  for (size_t k = 0; k < on.factors.size(); ++k)
    if (k != but) tensor = mode_product(tensor, on.factors[k].t(), on.modes[k]);
  return tensor;
}

}  // namespace detail

/// One sweep of higher-order orthogonal iteration (HOOI; De Lathauwer et al., 2000) over `parts`, which approximates
/// `tensor`: each factor in turn becomes the best one of its rank for the current others, then the core. Factors must
/// be orthonormal, and may have more columns than their rank at first (an identity: the sweep then is the truncated
/// higher-order SVD, mode by mode). A factor has no more columns than the others' multiply to. For a tensor that
/// changes between sweeps, such as one whose missing entries are filled again; otherwise see tucker().
inline void hooi_sweep(const at::Tensor& tensor, c10::IntArrayRef ranks, TuckerTensor& parts) {
  TORCH_CHECK(ranks.size() == parts.factors.size() && ranks.size() == parts.modes.size(), "steppe: a HOOI sweep over ",
              parts.factors.size(), " factors of ", parts.modes.size(), " modes needs as many ranks, got ", ranks);
  for (size_t k = 0; k < ranks.size(); ++k)
    parts.factors[k] =
        leading_left_vectors(unfold(detail::projected(tensor, parts, k), parts.modes[k]), ranks[k]).contiguous();
  parts.core = detail::projected(tensor, parts, ranks.size());
  ++parts.sweeps;
}

/// Tucker decomposition of given ranks: the higher-order SVD, then sweeps of higher-order orthogonal iteration (HOOI;
/// De Lathauwer et al., 2000), computed in float64 and returned in the tensor's type. Factors are orthonormal. The
/// error of the start is at most sqrt(sum_k sum_{i > r_k} s_k,i^2), s_k the singular values of unfolding k, and no
/// sweep raises it; at full rank the tensor is rebuilt to rounding.
///
/// A rank higher than a tensor of this shape, or a core of the other ranks, can need is lowered to that, with a
/// warning. Cost: one QR of every unfolding, again in each sweep of the projected tensor; memory: two copies in
/// float64. Errors: ranks below 1, another number of ranks than modes, entries that are not finite.
///
///     const auto parts = steppe::tensorized::tucker(tensor, {8, 4, 16});
///     const at::Tensor again = parts.full();  // parts.core, parts.factors
inline TuckerTensor tucker(const at::Tensor& tensor, c10::IntArrayRef ranks, const TuckerOptions& options = {}) {
  const c10::NoGradGuard no_grad;
  const at::Tensor wide = decomposable(tensor);
  detail::check_sweeps(options.sweeps(), options.tolerance());
  TuckerTensor found;
  found.modes = detail::tucker_modes(wide, ranks, options);
  const std::vector<int64_t> taken = detail::sufficient_tucker_ranks(wide.sizes(), found.modes, ranks);
  detail::warn_of_fewer_ranks("Tucker", ranks, taken, tensor.sizes());
  for (size_t k = 0; k < ranks.size(); ++k)
    found.factors.push_back(leading_left_vectors(unfold(wide, found.modes[k]), taken[k]));
  found.core = detail::projected(wide, found, ranks.size());
  const double size = frobenius(wide);
  // Factors are orthonormal: |T - full|^2 = |T|^2 - |core|^2.
  const auto error = [&] {
    return std::sqrt((std::max)(0.0, (size - frobenius(found.core)) * (size + frobenius(found.core))));
  };
  for (double before = error(); found.sweeps < options.sweeps() && before > 1e-7 * size;) {
    hooi_sweep(wide, taken, found);
    const double after = error();
    if (before - after <= options.tolerance() * size) break;
    before = after;
  }
  found.core = found.core.to(tensor.scalar_type()).contiguous();
  for (at::Tensor& factor : found.factors) factor = factor.to(tensor.scalar_type()).contiguous();
  return found;
}

}  // namespace tensorized
STEPPE_NAMESPACE_END
