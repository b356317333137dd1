// The cores of one weight: their shapes, how they are contracted, how they are initialized.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <steppe/tensorized/contraction.hpp>
#include <steppe/tensorized/core_options.hpp>
#include <steppe/tensorized/cp.hpp>
#include <steppe/tensorized/surplus_ranks.hpp>
#include <steppe/tensorized/tensor_ring.hpp>
#include <steppe/tensorized/tensor_train.hpp>
#include <steppe/tensorized/tucker.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// A tensor of given modes (of a layer's weight: output modes, the kernel's, input modes) as cores of one format.
///
/// Modes have the letters a, b, ..., ranks A, B, ...; every core is described by the letters of its dimensions:
///
///     CP            [d_k, R]             one per mode
///     Tucker        [ranks and sizes], then [d_k, r_k] for every mode that has a factor
///     TensorTrain   [r_k, d_k, r_{k+1}]  one per mode, the ring's ranks with r_0 = 1
///     TensorRing    [r_k, d_k, r_{k+1}]  one per mode, r_n = r_0
class CoreNetwork {
 public:
  CoreNetwork() = default;

  /// `kept`: the modes [first, end) that have no factor in Tucker format. Errors: options that do not fit the modes, a
  /// compression out of reach.
  CoreNetwork(std::vector<int64_t> modes, std::pair<size_t, size_t> kept, const CoreOptions& options)
      : format_(options.format()), modes_(std::move(modes)) {
    for (size_t k = 0; k < modes_.size(); ++k)
      if (k < kept.first || k >= kept.second) factored_.push_back(static_cast<int64_t>(k));
    options.validate();
    const std::vector<int64_t> limits = rank_limits();
    if (!options.ranks().empty()) {
      check_ranks(options.ranks(), limits.size());
      set_ranks(options.ranks());
    } else if (options.rank() > 0) {
      // In CP format and a ring all places share one rank, which is taken as it is.
      const bool own_limits = format_ == Format::Tucker || format_ == Format::TensorTrain;
      set_ranks(own_limits ? up_to(limits, options.rank()) : std::vector<int64_t>(limits.size(), options.rank()));
    } else {
      reach(options.compression(), limits);
    }
    std::string all;
    for (size_t k = 0; k < modes_.size(); ++k) all += mode_letter(k);
    whole_ = Contraction(letters_, all);
    order_ = whole_.cheapest(sizes_);
  }

  /// The format of the cores.
  Format format() const { return format_; }
  /// The shape of the full tensor.
  const std::vector<int64_t>& modes() const { return modes_; }
  /// In the order of CoreOptions::ranks().
  const std::vector<int64_t>& ranks() const { return ranks_; }
  /// The shape of every core.
  const std::vector<std::vector<int64_t>>& shapes() const { return shapes_; }
  /// The letters of a core, one per dimension.
  const std::string& letters(size_t core) const { return letters_[core]; }
  /// The core that holds a mode (in Tucker format: its factor, or the core itself).
  size_t core_of(size_t mode) const {
    if (format_ != Format::Tucker) return mode;
    const auto found = std::find(factored_.begin(), factored_.end(), static_cast<int64_t>(mode));
    return found == factored_.end() ? 0 : static_cast<size_t>(found - factored_.begin()) + 1;
  }
  /// a, b, ...
  static char mode_letter(size_t mode) { return static_cast<char>('a' + mode); }
  /// A, B, ...
  static char rank_letter(size_t rank) { return static_cast<char>('A' + rank); }
  /// The sizes of all modes and ranks.
  const LetterSizes& sizes() const { return sizes_; }

  /// Of the full tensor.
  int64_t entries() const { return product(modes_); }
  /// Entries of all cores together.
  int64_t parameters() const {
    int64_t sum = 0;
    for (const std::vector<int64_t>& shape : shapes_) sum += product(shape);
    return sum;
  }
  /// entries() over parameters().
  double compression() const { return static_cast<double>(entries()) / static_cast<double>(parameters()); }

  /// The tensor, in the shape of its modes. Differentiable.
  at::Tensor full(const std::vector<at::Tensor>& cores) const { return whole_.run(order_, cores); }
  /// The cost of full().
  double multiplications() const { return order_.multiplications; }

  /// The standard deviation of independent core entries that gives the tensor's entries the given variance: each is a
  /// sum, over all values of all ranks, of products of one entry of each core.
  double entry_deviation(double variance) const {
    double terms = 1.0;
    for (size_t k = 0; k < rank_letters_.size(); ++k) terms *= static_cast<double>(sizes_[rank_letters_[k]]);
    return std::pow(variance / terms, 0.5 / static_cast<double>(shapes_.size()));
  }

  /// The cores of a tensor, with equal norms (for a tensor of zeros, one core is zero). Ranks that the tensor does not
  /// need add nothing to it and can learn: they are zero in one core and random in the others that have them.
  std::vector<at::Tensor> decompose(const at::Tensor& tensor, int64_t sweeps, double tolerance) const {
    const c10::NoGradGuard no_grad;
    const at::Tensor wide = decomposable(tensor).reshape(modes_);
    switch (format_) {
      case Format::CP: {
        const int64_t needed = (std::min)(ranks_[0], detail::largest_cp_rank(modes_));
        const CPTensor parts = cp(wide, needed, CPOptions().sweeps(sweeps).tolerance(tolerance));
        return balanced(detail::grown_cp(parts.factors, ranks_[0]));
      }
      case Format::Tucker: {
        TuckerTensor parts = tucker(wide, detail::sufficient_tucker_ranks(modes_, factored_, ranks_),
                                    TuckerOptions().sweeps(sweeps).tolerance(tolerance).modes(factored_));
        parts.factors.insert(parts.factors.begin(), parts.core);
        return balanced(detail::grown_tucker(std::move(parts.factors), shapes_));
      }
      case Format::TensorTrain: {
        const std::vector<int64_t> needed = detail::sufficient_train_ranks(modes_, ranks_);
        return balanced(detail::grown_chain(detail::train_of_needed_ranks(wide, needed), shapes_));
      }
      case Format::TensorRing:
        break;
    }
    return balanced(detail::grown_chain(detail::ring_within_ranks(wide, ranks_, sweeps, tolerance).cores, shapes_));
  }

 private:
  static int64_t product(const std::vector<int64_t>& sizes) {
    int64_t all = 1;
    for (const int64_t size : sizes) all *= size;
    return all;
  }

  /// The largest rank of every place that a tensor of these modes can need.
  std::vector<int64_t> rank_limits() const {
    const int64_t all = entries();
    std::vector<int64_t> limits;
    if (format_ == Format::CP) return {detail::largest_cp_rank(modes_)};
    if (format_ == Format::Tucker) {
      for (const int64_t k : factored_) {
        const int64_t size = modes_[static_cast<size_t>(k)];
        limits.push_back((std::min)(size, all / size));
      }
      return limits;
    }
    int64_t left = 1, largest = 1;
    for (size_t k = 0; k + 1 < modes_.size(); ++k) {
      left *= modes_[k];
      limits.push_back((std::min)(left, all / left));
      largest = (std::max)(largest, limits.back());
    }
    return format_ == Format::TensorTrain ? limits : std::vector<int64_t>(modes_.size(), largest);
  }

  static std::vector<int64_t> up_to(std::vector<int64_t> limits, int64_t rank) {
    for (int64_t& limit : limits) limit = (std::min)(limit, rank);
    return limits;
  }

  void check_ranks(const std::vector<int64_t>& ranks, size_t count) const {
    TORCH_CHECK(ranks.size() == count, "steppe: ", format_, " cores of modes ", c10::IntArrayRef(modes_), " need ",
                count, " ranks, got ", c10::IntArrayRef(ranks));
    for (size_t k = 0; k < ranks.size(); ++k)
      TORCH_CHECK(ranks[k] >= 1, "steppe: ", format_, " rank ", ranks[k], " at place ", k, " must be at least 1");
  }

  /// Shapes and letters follow from the ranks.
  void set_ranks(std::vector<int64_t> ranks) {
    ranks_ = std::move(ranks);
    shapes_.clear();
    letters_.clear();
    rank_letters_.clear();
    for (size_t k = 0; k < modes_.size(); ++k) sizes_[mode_letter(k)] = modes_[k];
    std::vector<int64_t> ring = ranks_;
    if (format_ == Format::TensorTrain) ring.insert(ring.begin(), 1);
    for (size_t k = 0; k < ring.size(); ++k) {
      rank_letters_ += rank_letter(k);
      sizes_[rank_letter(k)] = ring[k];
    }
    if (format_ == Format::Tucker) add_tucker_core();
    for (size_t k = 0; k < modes_.size(); ++k) {
      const std::string mode(1, mode_letter(k));
      if (format_ == Format::CP) {
        add_core(mode + rank_letter(0));
      } else if (format_ == Format::Tucker) {
        if (core_of(k) > 0) add_core(mode + rank_letter(core_of(k) - 1));
      } else {
        add_core(rank_letter(k) + mode + rank_letter((k + 1) % modes_.size()));
      }
    }
  }

  void add_tucker_core() {
    std::string letters;
    for (size_t k = 0; k < modes_.size(); ++k) letters += core_of(k) > 0 ? rank_letter(core_of(k) - 1) : mode_letter(k);
    add_core(letters);
  }

  void add_core(const std::string& letters) {
    letters_.push_back(letters);
    std::vector<int64_t> shape;
    for (const char letter : letters) shape.push_back(sizes_[letter]);
    shapes_.push_back(std::move(shape));
  }

  /// Sets the largest rank that reaches a compression, by bisection: parameters grow with the rank.
  void reach(double target, const std::vector<int64_t>& limits) {
    int64_t low = 1, high = *std::max_element(limits.begin(), limits.end());
    const auto reached = [&](int64_t rank) {
      set_ranks(up_to(limits, rank));
      return compression() >= target;
    };
    TORCH_CHECK(reached(1), "steppe: a compression of ", target, " is out of reach for a weight of modes ",
                c10::IntArrayRef(modes_), " in ", format_, " format: rank 1 compresses by ", compression());
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      if (reached(middle))
        low = middle;
      else
        high = middle - 1;
    }
    set_ranks(up_to(limits, low));
  }

  static std::vector<at::Tensor> balanced(std::vector<at::Tensor> cores) {
    double logarithm = 0.0;
    for (const at::Tensor& core : cores) logarithm += std::log(frobenius(core));
    const double norm = std::exp(logarithm / static_cast<double>(cores.size()));
    if (norm > 0.0 && std::isfinite(norm))
      for (at::Tensor& core : cores) core = core * (norm / frobenius(core));
    return cores;
  }

  Format format_ = Format::TensorTrain;
  std::vector<int64_t> modes_, factored_, ranks_;
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<std::string> letters_;
  std::string rank_letters_;
  LetterSizes sizes_;
  Contraction whole_;
  Contraction::Order order_;
};

}  // namespace tensorized
STEPPE_NAMESPACE_END
