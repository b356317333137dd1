// CP decomposition: a sum of outer products.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <steppe/tensorized/alternating_least_squares.hpp>
#include <steppe/tensorized/contraction.hpp>
#include <steppe/tensorized/surplus_ranks.hpp>
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
  std::vector<at::Tensor> factors;  ///< one per mode
  int64_t sweeps = 0;               ///< of ALS that were made, from the best start
  double error = 0.0;               ///< |tensor - full()| / |tensor|, computed in float64; 0 for a tensor of zeros

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
  /// ALS sweeps at most, from each start.
  TORCH_ARG(int64_t, sweeps) = 100;
  /// Sweeps end when one lowers the error by less than this share of the tensor's norm.
  TORCH_ARG(double, tolerance) = 1e-8;
  /// Number of starts, each with its own sweeps; the result of the smallest error is returned.
  TORCH_ARG(int64_t, starts) = 1;
  /// Of random starts. 0: the first start is the higher-order SVD, with random columns only where that has too few;
  /// otherwise every start is random.
  TORCH_ARG(uint64_t, seed) = 0;
};

namespace detail {

/// The rank beyond which no tensor of this shape needs a further column: entries over largest mode.
inline int64_t largest_cp_rank(c10::IntArrayRef shape) {
  int64_t entries = 1, largest = 1;
  for (const int64_t d : shape) {
    entries *= d;
    largest = (std::max)(largest, d);
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

/// Normal columns of unit length on average.
inline at::Tensor random_columns(int64_t rows, int64_t columns, at::Generator& generator, const at::Tensor& beside) {
  const at::Tensor drawn = at::randn({rows, columns}, generator, at::kDouble);
  return drawn.to(beside.device()) / std::sqrt(static_cast<double>(rows));
}

/// Leading singular vectors of every unfolding, and random columns where there are more; or random columns alone.
inline std::vector<at::Tensor> cp_start(const at::Tensor& tensor, int64_t rank, at::Generator& generator, bool random) {
  std::vector<at::Tensor> factors;
  for (int64_t k = 0; k < tensor.dim(); ++k) {
    if (random) {
      factors.push_back(random_columns(tensor.size(k), rank, generator, tensor));
      continue;
    }
    at::Tensor factor = leading_left_vectors(unfold(tensor, k), rank);
    if (factor.size(1) < rank)
      factor = at::cat({factor, random_columns(tensor.size(k), rank - factor.size(1), generator, tensor)}, 1);
    factors.push_back(factor);
  }
  return factors;
}

/// ALS on one tensor. Modes fall into a first and a last part: the tensor times all factors of one part, [the other
/// part's sizes, R], is made once for all modes of the other (a dimension tree, Phan et al., 2013, of two branches).
/// The Gram matrix is the factors' own ones multiplied entry by entry. The Khatri-Rao product is never written.
class CPSweeps {
 public:
  CPSweeps(const at::Tensor& tensor, int64_t rank, const CPOptions& options) : tensor_(tensor), options_(options) {
    LetterSizes sizes;
    std::string all;
    sizes['R'] = rank;
    double best = std::numeric_limits<double>::infinity(), before = 1.0;
    for (int64_t k = 0; k < tensor.dim(); ++k) {
      all += static_cast<char>('a' + k);
      sizes[all.back()] = tensor.size(k);
      // What is kept of either part is as large as the other.
      const double larger = (std::max)(before, static_cast<double>(tensor.numel()) / before);
      if (k > 0 && larger < best) {
        best = larger;
        middle_ = static_cast<size_t>(k);
      }
      before *= static_cast<double>(tensor.size(k));
    }
    const auto products_of = [&](const std::string& of, const std::string& with, const std::string& result) {
      std::vector<std::string> letters = {of};
      for (const char letter : with) letters.push_back({letter, 'R'});
      Contraction made(std::move(letters), result + 'R');
      Contraction::Order order = made.cheapest(sizes);
      return Products{std::move(made), std::move(order)};
    };
    const std::string parts[2] = {all.substr(0, middle_), all.substr(middle_)};
    for (const size_t part : {size_t{0}, size_t{1}}) parts_.push_back(products_of(all, parts[1 - part], parts[part]));
    for (size_t k = 0; k < all.size(); ++k) {
      std::string others = parts[part_of(k)];
      others.erase(others.find(all[k]), 1);
      modes_.push_back(products_of(parts[part_of(k)] + 'R', others, {all[k]}));
    }
  }

  /// Sweeps from given factors; the last is fitted first, as a start has directions only.
  CPTensor from(std::vector<at::Tensor> factors) const {
    CPTensor found;
    found.factors = std::move(factors);
    const size_t last = found.factors.size() - 1;
    const double size = frobenius(tensor_);
    std::vector<at::Tensor> grams;
    for (const at::Tensor& factor : found.factors) grams.push_back(at::matmul(factor.t(), factor));
    found.factors[last] =
        fit(last, part(1, found.factors), found.factors, grams).from(at::zeros_like(found.factors[last]));
    grams[last] = at::matmul(found.factors[last].t(), found.factors[last]);
    for (double before = size; found.sweeps < options_.sweeps();) {
      FactorFit of_last;
      at::Tensor product;
      for (size_t k = 0; k <= last; ++k) {
        if (k == 0 || k == middle_) product = part(part_of(k), found.factors);
        of_last = fit(k, product, found.factors, grams);
        found.factors[k] = of_last.from(found.factors[k]);
        grams[k] = at::matmul(found.factors[k].t(), found.factors[k]);
      }
      ++found.sweeps;
      const double after =
          error_of(tensor_, size, options_.tolerance(), of_last, found.factors[last], [&] { return found.full(); });
      if (before - after <= options_.tolerance() * size) break;
      before = after;
    }
    found.error = frobenius(tensor_ - found.full()) / size;
    return found;
  }

 private:
  struct Products {
    Contraction contraction;
    Contraction::Order order;
  };

  size_t part_of(size_t mode) const { return mode < middle_ ? 0 : 1; }

  /// The tensor times the factors of the other part.
  at::Tensor part(size_t which, const std::vector<at::Tensor>& factors) const {
    std::vector<at::Tensor> operands = {tensor_};
    for (size_t k = 0; k < factors.size(); ++k)
      if (part_of(k) != which) operands.push_back(factors[k]);
    return parts_[which].contraction.run(parts_[which].order, operands);
  }

  FactorFit fit(size_t mode, const at::Tensor& part, const std::vector<at::Tensor>& factors,
                const std::vector<at::Tensor>& grams) const {
    std::vector<at::Tensor> operands = {part};
    at::Tensor gram;
    for (size_t k = 0; k < factors.size(); ++k) {
      if (k == mode) continue;
      if (part_of(k) == part_of(mode)) operands.push_back(factors[k]);
      gram = gram.defined() ? gram * grams[k] : grams[k];
    }
    return {modes_[mode].contraction.run(modes_[mode].order, operands), gram};
  }

  const at::Tensor tensor_;
  const CPOptions& options_;
  size_t middle_ = 1;  ///< the first mode of the last part
  std::vector<Products> parts_, modes_;
};

}  // namespace detail

/// CP decomposition of rank R by alternating least squares (ALS; Carroll and Chang, Harshman, 1970), computed in
/// float64 and returned in the tensor's type. Starts at the higher-order SVD, so that every call gives the same result,
/// and at random points if there are more starts; no sweep raises the error. At the largest rank, entries over largest
/// mode, it is exact by construction, without sweeps; a larger one is lowered to that, with a warning. Every column's
/// norm is shared evenly by the factors.
///
/// ALS may stop at a local minimum: unlike the other formats', its error has no bound in singular values. For a matrix
/// it is the truncated SVD. Cost of a sweep: R times the tensor's entries twice, and per mode a Cholesky decomposition
/// of R^3; the error comes from the Gram matrices (Kolda and Bader, 2009, section 3.4), or from the rebuilt tensor
/// where it is too small for that. Memory: two tensors in float64, R columns of all but one mode, and R columns of all
/// but the last mode. Errors: a rank below 1, entries that are not finite.
///
///     const auto parts = steppe::tensorized::cp(tensor, /*rank=*/8, CPOptions().starts(5));
///     const at::Tensor again = parts.full();  // parts.factors, parts.error
inline CPTensor cp(const at::Tensor& tensor, int64_t rank, const CPOptions& options = {}) {
  const c10::NoGradGuard no_grad;
  const at::Tensor wide = decomposable(tensor);
  const int64_t largest = detail::largest_cp_rank(wide.sizes());
  TORCH_CHECK(rank >= 1, "steppe: CP rank ", rank, " must be at least 1");
  detail::check_sweeps(options.sweeps(), options.tolerance());
  TORCH_CHECK(options.starts() >= 1, "steppe: cp() needs at least one start, got ", options.starts());
  CPTensor found;
  if (rank >= largest) {
    detail::warn_of_fewer_ranks("CP", {rank}, {largest}, wide.sizes());
    found = detail::cp_of_fibres(wide);
  } else if (wide.eq(0).all().item<bool>()) {
    for (const int64_t d : wide.sizes()) found.factors.push_back(at::zeros({d, rank}, wide.options()));
  } else {
    const detail::CPSweeps sweeps(wide, rank, options);
    at::Generator generator = at::detail::createCPUGenerator(options.seed());
    for (int64_t k = 0; k < options.starts(); ++k) {
      const bool random = k > 0 || options.seed() != 0;
      CPTensor next = sweeps.from(detail::cp_start(wide, rank, generator, random));
      if (k == 0 || next.error < found.error) found = std::move(next);
      if (found.error <= detail::kExact) break;
    }
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
