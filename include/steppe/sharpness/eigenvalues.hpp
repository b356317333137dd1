// The outermost eigenvalues of a loss's Hessian, with their vectors.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <tuple>
#include <vector>

#include <steppe/sharpness/hessian.hpp>
#include <steppe/sharpness/krylov_basis.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

enum class Which { Largest, Smallest, Magnitude };

/// Options of eigenvalues().
struct EigenvalueOptions {
  TORCH_ARG(int64_t, k) = 1;
  TORCH_ARG(Which, which) = Which::Largest;
  /// A pair is found when |H v - lambda v| is at most this share of the largest |lambda| seen.
  TORCH_ARG(double, tolerance) = 1e-4;
  /// Vectors held, over k or all there are; 0: 2 k + 20. Fewer need more products.
  TORCH_ARG(int64_t, basis) = 0;
  TORCH_ARG(int64_t, max_products) = 500;
  TORCH_ARG(uint64_t, seed) = 0;
};

struct Eigenpairs {
  std::vector<double> values;     ///< the most wanted first
  std::vector<double> residuals;  ///< |H v - lambda v|, beside values
  at::Tensor vectors;             ///< [k, parameters], of unit length
  int64_t products = 0;
  bool converged = false;
};

namespace detail {

/// The positions of `values`, the most wanted first.
inline std::vector<int64_t> by_wish(const at::Tensor& values, Which which) {
  std::vector<int64_t> order(static_cast<size_t>(values.size(0)));
  std::iota(order.begin(), order.end(), 0);
  const double* value = values.data_ptr<double>();
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    if (which == Which::Largest) return value[a] > value[b];
    if (which == Which::Smallest) return value[a] < value[b];
    return std::abs(value[a]) > std::abs(value[b]);
  });
  return order;
}

inline at::Tensor first_of(const std::vector<int64_t>& order, int64_t count) {
  at::Tensor index = at::empty({count}, at::kLong);
  std::copy_n(order.begin(), count, index.data_ptr<int64_t>());
  return index;
}

}  // namespace detail

/// The k outermost eigenvalues by Lanczos with full reorthogonalisation, restarted with the best vectors when the basis
/// is full.
///
/// Cost: `products` products with the Hessian, about 2 k + 20 for one that is well separated. Memory: `basis` flat
/// vectors and one more, two over several batches; so k 1 with basis(2) takes three copies of the parameters, or four,
/// and more products.
/// An eigenvalue that occurs several times may be found once, unless k or the basis is the number of parameters.
///
///     const auto top = sharpness::eigenvalues(hessian, sharpness::EigenvalueOptions().k(5));
///     top.values[0];  // and top.residuals[0], top.vectors[0]
///
/// Not finding them within max_products is no error: `converged` is false and the residuals say how near they are.
/// Errors: k, basis, tolerance or max_products out of their range.
inline Eigenpairs eigenvalues(const Hessian& hessian, const EigenvalueOptions& options = {}) {
  const LossSurface& surface = hessian.surface();
  const int64_t all = surface.numel(), k = options.k();
  TORCH_CHECK(k > 0 && k <= all, "steppe: k must be from 1 to the number of parameters, ", all, ", got ", k);
  const int64_t basis = std::min(all, options.basis() == 0 ? 2 * k + 20 : options.basis());
  TORCH_CHECK(basis > k || basis == all, "steppe: the basis must be larger than k = ", k, ", got ", basis);
  TORCH_CHECK(options.tolerance() > 0.0, "steppe: the tolerance must be over 0, got ", options.tolerance());
  TORCH_CHECK(options.max_products() >= k, "steppe: max_products must be at least k = ", k, ", got ",
              options.max_products());

  KrylovBasis krylov(hessian, basis, RandomVectors(options.seed()).normal(all, surface.vector_options()),
                     options.seed() + 1);
  Eigenpairs result;
  while (true) {
    krylov.extend();
    surface.tell("eigenvalues", ++result.products, options.max_products());
    if (krylov.size() < k) continue;
    const auto [values, rotation] = krylov.eigen();
    const std::vector<int64_t> order = detail::by_wish(values, options.which());
    const at::Tensor last = rotation[krylov.size() - 1].contiguous();
    result.values.clear();
    result.residuals.clear();
    for (int64_t i = 0; i < k; ++i) {
      result.values.push_back(values[order[i]].item<double>());
      result.residuals.push_back(krylov.beta() * std::abs(last[order[i]].item<double>()));
    }
    const double enough = options.tolerance() * values.abs().max().item<double>();
    const double worst = *std::max_element(result.residuals.begin(), result.residuals.end());
    // An invariant space (beta 0) says nothing of what lies outside of it.
    result.converged = krylov.size() == all || (krylov.beta() > 0.0 && worst <= enough);
    if (result.converged || result.products >= options.max_products()) {
      result.vectors = krylov.rotated(rotation.index_select(1, detail::first_of(order, k)));
      return result;
    }
    if (krylov.size() < basis) continue;
    const at::Tensor kept = detail::first_of(order, std::min(k + (basis - k) / 2, basis - 1));
    krylov.restart(values.index_select(0, kept), rotation.index_select(1, kept));
  }
}

}  // namespace sharpness
STEPPE_NAMESPACE_END
