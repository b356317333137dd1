// The ascent itself: w + e into every destination.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/variant.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

template <int kThreads, class Variant>
class Move {
 public:
  static constexpr int kResident = Variant::kResident;
  struct Shared {};

  explicit Move(const Work& work) : work_(work) {}

  template <class Block>
  STEPPE_DEVICE void operator()(const Block& block, Shared&) const {
    // From the end: what the sweep has read last is still in the cache.
    for (int chunk = static_cast<int>(work_.chunks) - 1 - block.index(); chunk >= 0; chunk -= block.count()) {
      const int layer = work_.entry_of_chunk[chunk];
      const Entry& entry = work_.entries[layer];
      if (entry.out == nullptr) continue;
      with_format_of<Variant>(entry.format, [&](auto format) {
        const Run<decltype(format), Variant> run(work_, entry, chunk - entry.first_chunk);
        move(block, run, work_.states[layer], work_.factors[layer]);
      });
    }
  }

 private:
  /// The destination may be the direction or the weights: every thread reads what it will write.
  template <class Block, class Run>
  STEPPE_DEVICE static void move(const Block& block, const Run& run, const State state, float factor) {
    using T = typename Run::Stored;
    T* const out = global(run.out);
    // What does not move keeps its bits: -0 + 0 would be +0.
    if (exact::is_zero(factor)) {
      STEPPE_KEEP_ROLLED
      for (int i = block.thread(); i < run.size; i += kThreads) out[i] = run.w[i];
      return;
    }
    for_each_pack<kThreads>(
        block, run,
        [&](auto width, int at) {
          return Neighbours<Run, decltype(width)::kValue>(width, run, at, /*with_weights=*/true);
        },
        [&](auto& near, int at) {
          STEPPE_UNROLL
          for (int j = 0; j < near.kSize; ++j) {
            float x = near.direction(run, j);
            if (!is_kept<Run>(state, x)) continue;
            const float weight = widen(near.w.x[j]);
            if (run.is_scaled) {
              const float size = size_of_weight(run, weight);
              x = rounded_to<T>(exact::product(rounded_to<T>(exact::product(x, size)), size));
            }
            narrow(exact::sum(weight, rounded_to<T>(exact::product(x, factor))), near.w.x[j]);
          }
          store(out + at, near.w);
        });
  }

  Work work_;
};

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
