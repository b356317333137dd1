// The outermost eigenvalues of a loss's Hessian, with their vectors.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/sharpness/hessian.hpp>
#include <steppe/sharpness/krylov_basis.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Which eigenvalues are wanted.
enum class Which {
  Largest,   ///< the largest by sign
  Smallest,  ///< the smallest by sign
  Magnitude  ///< the largest in absolute value
};

/// Options of eigenvalues().
struct EigenvalueOptions {
  /// Number of eigenpairs.
  TORCH_ARG(int64_t, k) = 1;
  /// The end of the spectrum that they are from.
  TORCH_ARG(Which, which) = Which::Largest;
  /// A pair is found when |H v - lambda v| is at most this share of the largest |lambda| seen.
  TORCH_ARG(double, tolerance) = 1e-4;
  /// Number of Lanczos vectors that are held, over k unless that is all parameters; 0: 2 k + 20. Fewer need more
  /// products.
  TORCH_ARG(int64_t, basis) = 0;
  /// Products with the Hessian at most.
  TORCH_ARG(int64_t, max_products) = 500;
  /// Of the random vectors that Lanczos starts from.
  TORCH_ARG(uint64_t, seed) = 0;
};

/// What eigenvalues() returns.
struct Eigenpairs {
  std::vector<double> values;     ///< the most wanted first
  std::vector<double> residuals;  ///< |H v - lambda v|, in the order of values
  at::Tensor vectors;             ///< [k, parameters], of unit length
  int64_t products = 0;           ///< with the Hessian that were made
  bool converged = false;         ///< whether the search was over within max_products
};

namespace detail {

/// Searches the k most wanted eigenpairs, one product at a time.
///
/// The first rows of the basis are pairs that were found; the block behind them is a Krylov space of one random vector
/// orthogonal to these. Such a space holds no eigenvalue twice. Therefore, once k pairs are there, another block must
/// show that what lies outside of them is not wanted more.
class EigenSearch {
 public:
  EigenSearch(const Hessian& hessian, const EigenvalueOptions& options, int64_t basis)
      : options_(options),
        all_(hessian.surface().numel()),
        basis_(basis),
        krylov_(hessian, basis, RandomVectors(options.seed()).normal(all_, hessian.surface().vector_options()),
                options.seed() + 1) {}

  /// One product. Returns whether the search is over.
  bool advance() {
    krylov_.extend();
    ++products_;
    see();
    if (static_cast<int64_t>(pairs_.size()) >= options_.k()) {
      const bool no_room = options_.k() + 2 > basis_ && basis_ < all_;
      converged_ = krylov_.size() == all_ || (found() && (no_room || confirmed()));
      if (converged_ || products_ >= options_.max_products()) return true;
    }
    if (found() && is_new())
      keep(options_.k(), /*anew=*/true);
    else if (kernels::exact::is_zero(krylov_.beta()))
      keep((std::min)(krylov_.size(), basis_ - 1), /*anew=*/true);
    else if (krylov_.size() == basis_)
      restart();
    return false;
  }

  int64_t products() const { return products_; }

  Eigenpairs result() {
    Eigenpairs result;
    const int64_t k = options_.k();
    for (int64_t i = 0; i < k; ++i) {
      result.values.push_back(pairs_[static_cast<size_t>(i)].value);
      result.residuals.push_back(pairs_[static_cast<size_t>(i)].residual);
    }
    result.vectors = krylov_.rotated(rotation_of(k));
    result.products = products_;
    result.converged = converged_;
    return result;
  }

 private:
  struct Pair {
    double value = 0.0, residual = 0.0;
    int64_t at = 0;  ///< its row if it was found before, otherwise from_ and its place in the block
  };

  bool is_wanted_more(const Pair& a, const Pair& b) const {
    return std::make_pair(-wish(a.value), a.at) < std::make_pair(-wish(b.value), b.at);
  }

  double wish(double value) const {
    return options_.which() == Which::Largest ? value : options_.which() == Which::Smallest ? -value : std::abs(value);
  }

  /// Updates all pairs, the most wanted first.
  void see() {
    const auto [values, rotation] = krylov_.eigen(from_);
    rotation_ = rotation;
    const at::Tensor last = rotation[rotation.size(0) - 1].abs() * krylov_.beta();
    const at::Tensor outside = at::matmul(krylov_.coupling(from_), rotation);
    const at::Tensor residuals = (last.square() + outside.square().sum(0)).sqrt();
    pairs_ = found_;
    low_ = values[0].item<double>();
    high_ = values[-1].item<double>();
    for (int64_t i = 0; i < values.size(0); ++i)
      pairs_.push_back({values[i].item<double>(), residuals[i].item<double>(), from_ + i});
    const auto more = [this](const Pair& a, const Pair& b) { return is_wanted_more(a, b); };
    top_ = *std::min_element(pairs_.begin() + from_, pairs_.end(), more);
    std::sort(pairs_.begin(), pairs_.end(), more);
    ++block_products_;
    if (!restarted_) steps_ = values.size(0);
    for (const Pair& pair : pairs_) largest_ = (std::max)(largest_, std::abs(pair.value));
  }

  double least_wish(const std::vector<Pair>& pairs) const {
    return wish(pairs[static_cast<size_t>(options_.k() - 1)].value);
  }

  bool found() const {
    const auto k = static_cast<size_t>(options_.k());
    return pairs_.size() >= k && std::all_of(pairs_.begin(), pairs_.begin() + options_.k(), [this](const Pair& pair) {
             return pair.residual <= options_.tolerance() * largest_;
           });
  }

  /// Whether the block has brought one of the k most wanted.
  bool is_new() const {
    return static_cast<int64_t>(found_.size()) < options_.k() ||
           wish(top_.value) > least_wish(found_) + options_.tolerance() * largest_;
  }

  /// Whether nothing outside of the pairs is wanted more than the k-th: the block's space has ended, its first pair has
  /// converged by the block's own measure or well within what separates it, or a random start makes more unlikely.
  bool confirmed() const {
    const double room = least_wish(pairs_) + options_.tolerance() * largest_ - wish(top_.value);
    if (room < 0.0) return false;
    const double size = (std::max)(std::abs(low_), std::abs(high_));
    const double enough = (std::max)(options_.tolerance() * size, 1e-2 * (std::min)(room, size));
    return kernels::exact::is_zero(krylov_.beta()) || top_.residual <= enough || missed() <= room;
  }

  /// How far beyond the block's outermost one an eigenvalue may lie. For a random start the share s of the spread that
  /// is missed obeys P <= 1.648 sqrt(n) exp(-sqrt(s) (2 steps - 1)) for Lanczos and P <= sqrt(n) exp(-s (products -
  /// 1/2)) for the power method, which restarts do not fall behind (Kuczynski and Wozniakowski 1992,
  /// doi 10.1137/0613066).
  double missed() const {
    const double n = static_cast<double>(all_), chance = 1e-3;
    const double root = std::log(1.648 * std::sqrt(n) / chance) / static_cast<double>(2 * steps_ - 1);
    const double power = std::log(std::sqrt(n) / chance) / (static_cast<double>(block_products_) - 0.5);
    const double share = (std::min)(root * root, power);
    return share < 0.5 ? share / (1.0 - 2.0 * share) * (high_ - low_) : std::numeric_limits<double>::infinity();
  }

  /// The first `count` pairs, as combinations of the rows.
  at::Tensor rotation_of(int64_t count) const {
    const at::Tensor rotation = at::zeros({krylov_.size(), count}, at::kDouble);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = pairs_[static_cast<size_t>(i)].at;
      if (at < from_)
        rotation[at][i].fill_(1.0);
      else
        rotation.slice(0, from_).select(1, i).copy_(rotation_.select(1, at - from_));
    }
    return rotation;
  }

  /// The first `count` pairs are the rows; where `anew`, they count as found and a block begins behind them.
  void keep(int64_t count, bool anew) {
    krylov_.restart(rotation_of(count));
    if (!anew) return;
    pairs_.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) pairs_[static_cast<size_t>(i)].at = i;
    found_ = pairs_;
    from_ = count;
    restarted_ = false;
    block_products_ = 0;
    krylov_.begin_block();
  }

  /// Makes room: what was found is kept, and of the block what is wanted and half of the rest.
  void restart() {
    const int64_t block = krylov_.size() - from_, wanted = std::max<int64_t>(1, options_.k() - from_);
    const int64_t count = (std::min)(from_ + wanted + (block - wanted) / 2, basis_ - 1);
    std::sort(pairs_.begin(), pairs_.end(), [this](const Pair& a, const Pair& b) {
      const bool a_is_found = a.at < from_, b_is_found = b.at < from_;
      return a_is_found != b_is_found ? a_is_found : is_wanted_more(a, b);
    });
    keep(count, /*anew=*/false);
    restarted_ = true;
  }

  const EigenvalueOptions& options_;
  int64_t all_, basis_;
  KrylovBasis krylov_;
  std::vector<Pair> pairs_, found_;
  Pair top_;                                       ///< the block's most wanted
  double low_ = 0.0, high_ = 0.0, largest_ = 0.0;  ///< of the block; the largest |lambda| seen
  at::Tensor rotation_;                            ///< of the block
  int64_t from_ = 0, products_ = 0;                ///< the block's first row; all products
  int64_t block_products_ = 0, steps_ = 0;         ///< the block's, and those before its first restart
  bool restarted_ = false, converged_ = false;
};

}  // namespace detail

/// The k outermost eigenvalues by Lanczos with full reorthogonalisation, restarted with the best vectors when the basis
/// is full. Those that occur several times are found as often.
///
/// Where a Krylov space ends, and where k > 1 pairs have been found, the search continues with a random vector
/// orthogonal to them, until that shows that none outside of them is wanted more. With a basis of k + 1 there is no
/// room for it: a multiple eigenvalue may then be found once.
///
/// Cost: `products` products with the Hessian, about 2 k + 20 for one that is well separated, for k > 1 up to as many
/// again; about as many as the rank where that is low. Memory: `basis` flat vectors and one more, two over several
/// batches; so k = 1 with basis(2) takes three copies of the parameters, or four, and more products.
///
///     const auto top = sharpness::eigenvalues(hessian, sharpness::EigenvalueOptions().k(5));
///     top.values[0];  // and top.residuals[0], top.vectors[0]
///
/// Not finding them within max_products is not an error: `converged` is false and the residuals say how near they are.
/// Errors: k, basis, tolerance or max_products out of their range.
inline Eigenpairs eigenvalues(const Hessian& hessian, const EigenvalueOptions& options = {}) {
  const LossSurface& surface = hessian.surface();
  const int64_t all = surface.numel(), k = options.k();
  TORCH_CHECK(k > 0 && k <= all, "steppe: k must be from 1 to the number of parameters, ", all, ", got ", k);
  const int64_t basis = (std::min)(all, options.basis() == 0 ? 2 * k + 20 : options.basis());
  TORCH_CHECK(basis > k || basis == all, "steppe: the basis must be larger than k = ", k, ", got ", basis);
  TORCH_CHECK(options.tolerance() > 0.0, "steppe: the tolerance must be over 0, got ", options.tolerance());
  TORCH_CHECK(options.max_products() >= k, "steppe: max_products must be at least k = ", k, ", got ",
              options.max_products());
  detail::EigenSearch search(hessian, options, basis);
  bool over = false;
  while (!over) {
    over = search.advance();
    surface.tell("eigenvalues", search.products(), options.max_products());
  }
  return search.result();
}

}  // namespace sharpness
STEPPE_NAMESPACE_END
