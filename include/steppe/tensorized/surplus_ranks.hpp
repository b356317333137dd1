// Ranks beyond what a tensor needs: reported in a warning, and filled so that they add nothing and can learn.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/where.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include <steppe/tensorized/unfolding.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized::detail {

/// Warns that a decomposition has lower ranks than requested.
inline void warn_of_fewer_ranks(const char* format, c10::IntArrayRef asked, c10::IntArrayRef given,
                                c10::IntArrayRef shape) {
  if (asked != given)
    TORCH_WARN("steppe: ", format, " ranks ", asked, " were requested for a tensor of shape ", shape, "; ", given,
               " are enough for the same tensor and were used");
}

inline at::Tensor drawn(at::IntArrayRef shape, at::Generator& generator, const at::Tensor& beside) {
  return at::randn(shape, generator, at::kDouble).to(beside.device());
}

/// CP factors with more columns. A weak column, which would get almost no gradient, keeps its outer product (zero for a
/// new one) with its norm in the first factor alone; the other factors' columns have the usual length.
inline std::vector<at::Tensor> grown_cp(std::vector<at::Tensor> factors, int64_t rank) {
  at::Generator generator = at::detail::createCPUGenerator(0);
  const double modes = static_cast<double>(factors.size());
  at::Tensor norms;
  for (at::Tensor& factor : factors) {
    factor = at::constant_pad_nd(factor, {0, rank - factor.size(1)}, 0);
    const at::Tensor own = factor.square().sum(0).sqrt();
    norms = norms.defined() ? norms * own : own;
  }
  const double largest = norms.amax().item<double>();
  const double usual = largest > 0.0 ? std::pow(largest, 1.0 / modes) : 1.0;
  const at::Tensor weak = norms <= 1e-4 * largest;
  for (size_t k = 0; k < factors.size(); ++k) {
    const at::Tensor own = factors[k].square().sum(0).sqrt(), none = own == 0;
    const at::Tensor random = drawn(factors[k].sizes(), generator, factors[k]);
    const at::Tensor direction =
        at::where(none, random / random.square().sum(0).sqrt(), factors[k] / own.masked_fill(none, 1.0));
    const at::Tensor length = k == 0 ? norms * std::pow(usual, 1.0 - modes) : at::full_like(norms, usual);
    factors[k] = at::where(weak, direction * length, factors[k]);
  }
  return factors;
}

/// A Tucker core and its factors, in the given shapes: the core is padded with zeros, the factors with columns that are
/// orthonormal while the mode has room for them and random beyond.
inline std::vector<at::Tensor> grown_tucker(std::vector<at::Tensor> cores,
                                            const std::vector<std::vector<int64_t>>& shapes) {
  at::Generator generator = at::detail::createCPUGenerator(0);
  std::vector<int64_t> padding;
  for (int64_t k = cores[0].dim() - 1; k >= 0; --k)
    padding.insert(padding.end(), {0, shapes[0][static_cast<size_t>(k)] - cores[0].size(k)});
  cores[0] = at::constant_pad_nd(cores[0], padding, 0);
  for (size_t k = 1; k < cores.size(); ++k) {
    const at::Tensor factor = cores[k];
    const int64_t size = factor.size(0), columns = factor.size(1), rank = shapes[k][1];
    if (rank == columns) continue;
    const at::Tensor more = drawn({size, rank - columns}, generator, factor) / std::sqrt(static_cast<double>(size));
    const int64_t room = (std::min)(size, rank) - columns;
    const at::Tensor basis = std::get<0>(at::linalg_qr(at::cat({factor, more.slice(1, 0, room)}, 1)));
    cores[k] = at::cat({factor, basis.slice(1, columns), more.slice(1, room)}, 1);
  }
  return cores;
}

/// The cores of a train or ring, in the given shapes. The new rank indices lead to each other by random entries from
/// core to core, and by zeros back to the old ones or to the ring's beginning.
inline std::vector<at::Tensor> grown_chain(std::vector<at::Tensor> cores,
                                           const std::vector<std::vector<int64_t>>& shapes) {
  at::Generator generator = at::detail::createCPUGenerator(0);
  for (size_t k = 0; k < cores.size(); ++k) {
    const at::Tensor core = cores[k];
    const int64_t rows = core.size(0), columns = core.size(2);
    const std::vector<int64_t>& shape = shapes[k];
    const double norm = frobenius(core);
    const double entry = (norm > 0.0 ? norm : 1.0) / std::sqrt(static_cast<double>(core.numel()));
    cores[k] = at::constant_pad_nd(core, {0, shape[2] - columns, 0, 0, 0, shape[0] - rows}, 0);
    const at::Tensor beyond = cores[k].slice(0, 0, k + 1 == cores.size() ? rows : shape[0]).slice(2, columns);
    beyond.copy_(drawn(beyond.sizes(), generator, core) * entry);
  }
  return cores;
}

}  // namespace tensorized::detail
STEPPE_NAMESPACE_END
