// The ascent itself: w + e into every destination.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

template <int kThreads>
class Move {
 public:
  struct Shared {};

  explicit Move(const Work& work) : work_(work) {}

  template <class Block>
  STEPPE_DEVICE void operator()(const Block& block, Shared&) const {
    for (int64_t chunk = block.index(); chunk < work_.chunks; chunk += block.count()) {
      const int64_t layer = work_.entry_of_chunk[chunk];
      const Entry& entry = work_.entries[layer];
      if (entry.out == nullptr) continue;
      with_format(entry.format, [&](auto format) {
        const Run<decltype(format)> run(work_, entry, chunk - entry.first_chunk);
        move(block, run, work_.states[layer], work_.factors[layer]);
      });
    }
  }

 private:
  /// The destination may be the direction or the weights: every thread reads what it will write.
  template <class Block, class T>
  STEPPE_DEVICE static void move(const Block& block, const Run<T>& run, const State state, float factor) {
    for_each_pack<kThreads>(block, run, [&](auto width, int64_t at) {
      constexpr int kWidth = decltype(width)::kValue;
      const auto g = load<kWidth>(run.g + at);
      auto w = load<kWidth>(run.w + at);
      RowMeans<T> row_means(run, at);
      STEPPE_UNROLL
      for (int j = 0; j < kWidth; ++j) {
        float x = centralized<T>(run.entry, widen(g.x[j]), row_means.next());
        // What does not move keeps its bits: -0 + 0 would be +0.
        if (exact::is_zero(factor) || !is_kept<T>(state, x)) continue;
        const float weight = widen(w.x[j]);
        if (run.entry.scaled != 0) {
          const float size = size_of_weight<T>(run.entry, weight);
          x = rounded_to<T>(exact::product(rounded_to<T>(exact::product(x, size)), size));
        }
        narrow(exact::sum(weight, rounded_to<T>(exact::product(x, factor))), w.x[j]);
      }
      store(run.out + at, w);
    });
  }

  Work work_;
};

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
