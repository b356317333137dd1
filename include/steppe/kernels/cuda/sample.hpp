// A window for the threshold of every large filtered layer, drawn from a sample of its components.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/reduction.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// One block for each layer.
///
/// With c the sample's mean and s its deviation, the true mean is usually within r = 5 s / sqrt(m) of c. A component
/// nearer to c than `low` is then no farther than low + r from the mean, and one farther from c than `sure` = low + 2 r
/// is no nearer. So if as many components are beyond `sure` as there are from the threshold upwards, the threshold is
/// one of those beyond `low`, and so is everything above it. The sweep counts them, and checks this at its end.
template <int kThreads>
class Sample {
 public:
  static constexpr int kResident = 4;
  struct Shared {
    float x[kSample];
    unsigned bins[kBins];
    unsigned sums[kThreads];
    unsigned key, left;
    Sums<kThreads> parts;
  };

  explicit Sample(const Work& work) : work_(work) {}

  template <class Block>
  STEPPE_DEVICE void operator()(const Block& block, Shared& shared) const {
    for (int layer = block.index(); layer < work_.layers; layer += block.count()) {
      const Entry& entry = work_.entries[layer];
      if (entry.sample == 0) continue;
      Part mine;
      with_format(entry.format, [&](auto format) { draw<decltype(format)>(block, shared, entry, mine); });
      const Part sums = sum_over_threads(block, shared.parts, mine);
      const Window window = window_of(block, shared, entry, sums);
      if (block.thread() == 0) work_.windows[layer] = window;
    }
  }

 private:
  template <class T, class Block>
  STEPPE_DEVICE void draw(const Block& block, Shared& shared, const Entry& entry, Part& mine) const {
    const T* const g = global(static_cast<const T*>(entry.direction));
    const int64_t apart = entry.cut.size / (entry.sample / kSampledLine);
    for (int64_t i = block.thread(); i < entry.sample; i += kThreads) {
      const float x = widen(g[i / kSampledLine * apart + i % kSampledLine]);
      shared.x[i] = x;
      mine.sum += exact::as_double(x);
      mine.raw += exact::as_double(x) * exact::as_double(x);
    }
  }

  template <class Block>
  STEPPE_DEVICE Window window_of(const Block& block, Shared& shared, const Entry& entry, const Part& sums) const {
    const auto m = static_cast<double>(entry.sample);
    const double mean = sums.sum / m, deviation = sqrt(fmax(sums.raw / m - mean * mean, 0.0));
    const double share = static_cast<double>(entry.cut.size - entry.rank) / static_cast<double>(entry.cut.size);
    const double wanted = share * m + 4.5 * sqrt(share * (1.0 - share) * m) + 2.0;
    Window window{exact::as_float(mean), INFINITY, 0.0f, 0.0f};
    if (!(wanted < 0.25 * m)) return window;  // a list of most components saves nothing
    const float high = beyond(block, shared, entry.sample, window.centre, static_cast<unsigned>(wanted));
    const auto reach = exact::as_float(5.0 * deviation / sqrt(m));
    const float low = exact::difference(high, exact::product(2.0f, reach));
    if (!exact::is_greater(low, kLeastDistance) || !exact::is_greater(kLargestDistance, high)) return window;
    window.low = low;
    window.reach = reach;
    window.sure = exact::product(exact::sum(low, exact::product(2.0f, reach)), 1.0f + 1e-5f);
    return window;
  }

  /// A distance from the centre that at least `count` of the sample reach, and few more: found by the upper 22 of its
  /// bits.
  template <class Block>
  STEPPE_DEVICE float beyond(const Block& block, Shared& shared, int64_t sample, float centre, unsigned count) const {
    constexpr int kBits = 11, kLowest = 9, kMine = kBins / kThreads;
    const int thread = block.thread();
    uint32_t key = 0;
    for (int shift = kLowest + kBits; shift >= kLowest; shift -= kBits) {
      for (int bin = thread; bin < kBins; bin += kThreads) shared.bins[bin] = 0;
      block.sync();
      for (int64_t i = thread; i < sample; i += kThreads) {
        const uint32_t bits = exact::bits_of(exact::magnitude(exact::difference(shared.x[i], centre))) >> shift;
        if (bits >> kBits == key) block.add(shared.bins + (bits & (kBins - 1)), 1u);
      }
      block.sync();
      unsigned mine = 0;
      for (int i = 0; i < kMine; ++i) mine += shared.bins[thread * kMine + i];
      shared.sums[thread] = mine;
      block.sync();
      if (thread == 0) descend(shared, key, count);
      block.sync();
      key = shared.key;
      count = shared.left;
    }
    return exact::float_of(key << kLowest);
  }

  /// Goes from the farthest bin inwards, until `count` are passed.
  STEPPE_DEVICE static void descend(Shared& shared, uint32_t key, unsigned count) {
    constexpr int kMine = kBins / kThreads;
    int thread = kThreads - 1;
    for (; thread > 0 && shared.sums[thread] < count; --thread) count -= shared.sums[thread];
    int bin = thread * kMine + kMine - 1;
    for (; bin > thread * kMine && shared.bins[bin] < count; --bin) count -= shared.bins[bin];
    shared.key = key * kBins + static_cast<unsigned>(bin);
    shared.left = count;
  }

  /// Outside of these, products with 1 + 1e-5 could underflow or overflow.
  static constexpr float kLeastDistance = 1e-30f, kLargestDistance = 1e30f;

  Work work_;
};

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
