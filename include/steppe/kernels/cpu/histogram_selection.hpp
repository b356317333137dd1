// The value of a given rank among more numbers than fit into a buffer, without assumptions about them.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <limits>

#include <steppe/kernels/cpu/layer.hpp>
#include <steppe/kernels/cpu/memory.hpp>
#include <steppe/kernels/cpu/order_statistic.hpp>
#include <steppe/kernels/cpu/passes.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Non-negative numbers that come in parts of at most kPiece: `for_each_part(block, visit)` writes each in turn to
/// `block` and calls visit(count). They are read once for every factor of 2048 that their bits range over.
template <class N, class Parts>
class HistogramSelection {
 public:
  HistogramSelection(const Passes<N>& passes, const Parts& for_each_part, Memory& memory)
      : passes_(passes),
        for_each_part_(for_each_part),
        block_(memory.room_for<N>(2 * (kPiece + kBlockRoom))),
        few_(block_ + kPiece + kBlockRoom) {}

  /// The element at `rank` of the descending order of all n.
  N find(int64_t n, int64_t rank) {
    int64_t inside = n;
    while (inside > kPiece && high_ - low_ > 1) inside = narrow(rank);
    if (high_ - low_ <= 1) return number_at<N>(high_);
    int64_t found = 0;
    for_each_part_(block_, [&](int64_t count) {
      found += passes_.between(block_, count, number_at<N>(low_), number_at<N>(high_), few_ + found);
    });
    return order_statistic(passes_, few_, found, rank);
  }

 private:
  /// Cuts (low, high] to the bin that holds the rank; returns how many values are in it.
  int64_t narrow(int64_t& rank) {
    constexpr int kBins = 2048;
    int shift = 0;
    while (((high_ - low_ - 1) >> shift) >= kBins) ++shift;
    int64_t counts[kBins] = {};
    for_each_part_(block_, [&](int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        const Ordinal<N> at = ordinal_of(block_[i]);
        if (at > low_ && at <= high_) ++counts[(at - low_ - 1) >> shift];
      }
    });
    int bin = kBins - 1;
    while (bin > 0 && rank >= counts[bin]) rank -= counts[bin--];
    const Ordinal<N> first = low_ + 1 + (static_cast<Ordinal<N>>(bin) << shift);
    const Ordinal<N> width = static_cast<Ordinal<N>>(1) << shift;
    high_ = high_ - first < width ? high_ : static_cast<Ordinal<N>>(first + width - 1);
    low_ = first - 1;
    return counts[bin];
  }

  const Passes<N>& passes_;
  const Parts& for_each_part_;
  N *block_, *few_;
  Ordinal<N> low_ = -1, high_ = ordinal_of(std::numeric_limits<N>::infinity());
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
