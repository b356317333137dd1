// CP decomposition: a sum of outer products.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_pinv.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <steppe/tensorized/contraction.hpp>
#include <steppe/tensorized/unfolding.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// The columns' Kronecker products of all factors but one, [product of d_k, R], rows in the order of unfold()'s
/// columns; but = -1: of all. Differentiable.
inline at::Tensor khatri_rao(const std::vector<at::Tensor>& factors, int64_t but = -1) {
  at::Tensor product;
  for (size_t k = 0; k < factors.size(); ++k) {
    if (static_cast<int64_t>(k) == but) continue;
    product = product.defined() ? (product.unsqueeze(1) * factors[k].unsqueeze(0)).reshape({-1, factors[k].size(1)})
                                : factors[k];
  }
  return product;
}

/// T = sum_r a_1,r o a_2,r o ... o a_n,r: factor k is [d_k, R].
struct CPTensor {
  std::vector<at::Tensor> factors;
  int64_t sweeps = 0;  ///< of ALS that were made

  /// The tensor, [d_1, ..., d_n]. Differentiable with respect to the factors.
  at::Tensor full() const {
    if (factors.size() == 1) return factors[0].sum(1);
    std::vector<int64_t> shape;
    for (const at::Tensor& factor : factors) shape.push_back(factor.size(0));
    const int64_t last = static_cast<int64_t>(factors.size()) - 1;
    return at::matmul(khatri_rao(factors, last), factors.back().t()).view(shape);
  }
};

/// Options of cp().
struct CPOptions {
  /// ALS sweeps at most.
  TORCH_ARG(int64_t, sweeps) = 100;
  /// Sweeps end when one lowers the error by less than this share of the tensor's norm.
  TORCH_ARG(double, tolerance) = 1e-8;
  /// Of the columns that start at random: those beyond what the higher-order SVD gives.
  TORCH_ARG(uint64_t, seed) = 0;
};

namespace detail {

/// The rank beyond which no tensor of this shape needs a further column: entries over largest mode.
inline int64_t largest_cp_rank(c10::IntArrayRef shape) {
  int64_t entries = 1, largest = 1;
  for (const int64_t d : shape) {
    entries *= d;
    largest = std::max(largest, d);
  }
  return entries / largest;
}

/// At the largest rank: every column one fibre of the largest mode, at its place by unit vectors.
inline CPTensor cp_of_fibres(const at::Tensor& tensor) {
  int64_t largest = 0;
  for (int64_t k = 1; k < tensor.dim(); ++k)
    if (tensor.size(k) > tensor.size(largest)) largest = k;
  const int64_t columns = tensor.numel() / tensor.size(largest);
  CPTensor parts;
  int64_t after = columns;  // product of the sizes after mode k, the largest left out
  for (int64_t k = 0; k < tensor.dim(); ++k) {
    if (k == largest) {
      parts.factors.push_back(unfold(tensor, k).contiguous());
      continue;
    }
    after /= tensor.size(k);
    const at::Tensor place =
        at::arange(columns, tensor.options().dtype(at::kLong)).div(after, "floor").remainder(tensor.size(k));
    parts.factors.push_back(at::one_hot(place, tensor.size(k)).t().to(at::kDouble).contiguous());
  }
  return parts;
}

/// Leading singular vectors of every unfolding, and seeded random columns where there are more.
inline CPTensor cp_start(const at::Tensor& tensor, int64_t rank, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  CPTensor parts;
  for (int64_t k = 0; k < tensor.dim(); ++k) {
    at::Tensor factor = leading_left_vectors(unfold(tensor, k), rank);
    if (factor.size(1) < rank) {
      const at::Tensor more = at::randn({tensor.size(k), rank - factor.size(1)}, generator, at::kDouble);
      factor = at::cat({factor, more.to(factor.device()) / std::sqrt(static_cast<double>(tensor.size(k)))}, 1);
    }
    parts.factors.push_back(factor);
  }
  return parts;
}

/// The factor of one mode that fits best while the others stay, min |unfold(T, k) - F KR^T|: F = (T . others) G^+ with
/// the Gram matrix G = KR^T KR, which is the factors' own Gram matrices multiplied entry by entry. KR itself, as large
/// as the tensor times R / d_k, is never written.
inline at::Tensor fitted_factor(const at::Tensor& tensor, const std::vector<at::Tensor>& factors, size_t mode) {
  std::vector<at::Tensor> operands = {tensor};
  std::vector<std::string> letters = {""};
  LetterSizes sizes;
  at::Tensor gram;
  sizes['R'] = factors[0].size(1);
  for (size_t k = 0; k < factors.size(); ++k) {
    const char letter = static_cast<char>('a' + k);
    letters[0] += letter;
    sizes[letter] = factors[k].size(0);
    if (k == mode) continue;
    operands.push_back(factors[k]);
    letters.push_back({letter, 'R'});
    const at::Tensor own = at::matmul(factors[k].t(), factors[k]);
    gram = gram.defined() ? gram * own : own;
  }
  const Contraction product(std::move(letters), {static_cast<char>('a' + mode), 'R'});
  const at::Tensor inverse =
      at::linalg_pinv(gram, c10::optional<double>(), c10::optional<double>(1e-13), /*hermitian=*/true);
  return at::matmul(product.run(product.cheapest(sizes), operands), inverse);
}

}  // namespace detail

/// CP decomposition of rank R by alternating least squares (ALS; Carroll and Chang, Harshman, 1970), computed in
/// float64 and returned in the tensor's type. Starts at the higher-order SVD, so that it gives the same at every call;
/// no sweep raises the error. At the largest rank, entries over largest mode, it is exact by construction, without
/// sweeps. Every column's norm is shared evenly by the factors.
///
/// ALS may stop at a local minimum: unlike the other formats', its error has no bound in singular values. For a matrix
/// it is the truncated SVD. Cost of a sweep: per mode about R times the tensor's entries, and an inverse of R^3, and
/// the tensor built from its factors for the error; memory: three tensors in float64 and R columns of all but the last
/// mode. Errors below 1e-10 of the tensor's norm are rounding. Errors: a rank below 1 or beyond the largest, entries
/// that are not finite.
///
///     const auto parts = steppe::tensorized::cp(tensor, /*rank=*/8);
///     const at::Tensor again = parts.full();  // parts.factors
inline CPTensor cp(const at::Tensor& tensor, int64_t rank, const CPOptions& options = {}) {
  const c10::NoGradGuard no_grad;
  const at::Tensor wide = decomposable(tensor);
  const int64_t largest = detail::largest_cp_rank(wide.sizes());
  TORCH_CHECK(rank >= 1 && rank <= largest, "steppe: CP rank ", rank, " must be from 1 to ", largest,
              " for a tensor of shape ", tensor.sizes());
  TORCH_CHECK(options.sweeps() >= 0 && options.tolerance() >= 0.0,
              "steppe: sweeps and tolerance must be at least 0, got ", options.sweeps(), " and ", options.tolerance());
  const bool exact = rank == largest;
  CPTensor found = exact ? detail::cp_of_fibres(wide) : detail::cp_start(wide, rank, options.seed());
  const double size = frobenius(wide);
  double before = size;
  // The last mode is fitted in any case: the start knows directions only.
  if (!exact) found.factors.back() = detail::fitted_factor(wide, found.factors, found.factors.size() - 1);
  while (!exact && found.sweeps < options.sweeps()) {
    for (size_t k = 0; k < found.factors.size(); ++k) found.factors[k] = detail::fitted_factor(wide, found.factors, k);
    ++found.sweeps;
    const double after = frobenius(wide - found.full());
    if (before - after <= options.tolerance() * size) break;
    before = after;
  }
  at::Tensor norms;  // of the columns, multiplied over the modes
  for (at::Tensor& factor : found.factors) {
    const at::Tensor norm = factor.square().sum(0).sqrt();
    norms = norms.defined() ? norms * norm : norm;
    factor = factor / norm.masked_fill(norm == 0, 1.0);
  }
  const at::Tensor share = norms.pow(1.0 / static_cast<double>(wide.dim()));
  for (at::Tensor& factor : found.factors) factor = (factor * share).to(tensor.scalar_type()).contiguous();
  return found;
}

}  // namespace tensorized
STEPPE_NAMESPACE_END
