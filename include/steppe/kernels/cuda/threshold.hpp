// The threshold of a filter: an order statistic of |x - mean|, found exactly by histograms of its bits.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/list.hpp>
#include <steppe/kernels/cuda/reduction.hpp>
#include <steppe/kernels/cuda/variant.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Bits of the distances, from the top; they are not negative and have the order of their bits.
struct Level {
  int shift, bits;
};
constexpr int kLevels = 3;
STEPPE_HOST_DEVICE constexpr Level level_at(int index) {
  return index == 0 ? Level{20, 11} : index == 1 ? Level{9, 11} : Level{0, 9};
}

/// One level for every filtered layer: over the lists of its window where that is valid, otherwise over the gradient.
/// After the last one the threshold is known, and how many distances are above it.
template <int kThreads, class Variant>
class Threshold {
 public:
  static constexpr int kResident = Variant::kResident;
  struct Shared {
    unsigned bins[kBins];
    Count sums[kThreads];
    Sums<kThreads> ticket;
  };

  Threshold(const Work& work, int level) : work_(work), level_(level) {}

  template <class Block>
  STEPPE_DEVICE void operator()(const Block& block, Shared& shared) const {
    for (int chunk = block.index(); chunk < work_.chunks; chunk += block.count()) {
      const int layer = work_.entry_of_chunk[chunk];
      const Entry& entry = work_.entries[layer];
      if (entry.filtered == 0) continue;
      STEPPE_KEEP_ROLLED
      for (int bin = block.thread(); bin < kBins; bin += kThreads) shared.bins[bin] = 0;
      block.sync();
      with_format_of<Variant>(entry.format, [&](auto format) {
        const Run<decltype(format), Variant> run(work_, entry, chunk - entry.first_chunk);
        count(block, shared, run, layer, chunk - entry.first_chunk);
      });
      block.sync();
      Count* const all = work_.histograms + entry.histogram * kBins;
      STEPPE_KEEP_ROLLED
      for (int bin = block.thread(); bin < kBins; bin += kThreads)
        if (shared.bins[bin] != 0) block.add(all + bin, static_cast<Count>(shared.bins[bin]));
      block.sync();
      if (is_last(block, shared.ticket, work_.tickets + layer, entry.chunks))
        choose(block, shared, all, work_.states[layer]);
    }
  }

 private:
  template <class Block, class Run>
  STEPPE_DEVICE void count(const Block& block, Shared& shared, const Run& run, int layer, int64_t chunk) const {
    using T = typename Run::Stored;
    const Level level = level_at(level_);
    const State& state = work_.states[layer];
    const float mean = state.mean;
    const uint32_t key = state.key, mask = (1u << level.bits) - 1u;
    const auto take = [&](float x) {
      const uint32_t bits = kernels::exact::bits_of(distance<T>(x, mean)) >> level.shift;
      if (bits >> level.bits == key) block.add(shared.bins + (bits & mask), 1u);
    };
    if (state.listed)
      return List<kThreads, T>(work_, run.entry, chunk, block.thread())
          .for_each(block, run, work_.windows[layer], take);
    for_each_pack<kThreads>(
        block, run, [&](auto width, int at) { return Neighbours<Run, decltype(width)::kValue>(width, run, at); },
        [&](auto& near, int) {
          STEPPE_UNROLL
          for (int j = 0; j < near.kSize; ++j) take(near.direction(run, j));
        });
  }

  /// Finds the bin that holds the rank. Clears the histogram for the next level.
  template <class Block>
  STEPPE_DEVICE void choose(const Block& block, Shared& shared, Count* all, State& state) const {
    constexpr int kMine = kBins / kThreads;
    static_assert(kMine * kThreads == kBins);
    const int thread = block.thread();
    Count mine = 0;
    for (int i = 0; i < kMine; ++i) mine += all[thread * kMine + i];
    shared.sums[thread] = mine;
    block.sync();
    Count below = 0, total = 0;
    for (int i = 0; i < kThreads; ++i) {
      if (i < thread) below += shared.sums[i];
      total += shared.sums[i];
    }
    const auto rank = static_cast<Count>(state.rank);
    block.sync();  // before the rank is written
    if (rank >= below && rank - below < mine) {
      int bin = thread * kMine;
      while (rank - below >= all[bin]) below += all[bin++];
      descend(state, bin, rank - below, total - below - all[bin]);
    }
    STEPPE_KEEP_ROLLED
    for (int i = 0; i < kMine; ++i) all[thread * kMine + i] = 0;
  }

  STEPPE_DEVICE void descend(State& state, int bin, Count rank, Count above) const {
    state.key = (state.key << level_at(level_).bits) | static_cast<uint32_t>(bin);
    state.rank = static_cast<int64_t>(rank);
    state.above += static_cast<int64_t>(above);
    if (level_ < kLevels - 1) return;
    state.threshold = exact::float_of(state.key);
    // A layer without a tail keeps its direction.
    state.filters = state.above > 0;
  }

  Work work_;
  int level_;
};

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
