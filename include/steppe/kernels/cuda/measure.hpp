// The sums over a chunk that norms and means are made of.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/list.hpp>
#include <steppe/kernels/cuda/thread_sum.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Adds g^2 of a run, and g where a mean may be asked for.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_sums(const Block& block, const Run& run, Part& mine) {
  add_up<typename Run::Variant::Sum>(mine, [&](auto& sums) {
    for_each_stored<kThreads>(block, run, [&](auto stored) {
      const float x = widen(stored);
      if (Run::Variant::kCentralizes || Run::Variant::kFilters) sums.sum.add(x);
      sums.raw.add_square(x);
    });
  });
}

/// The same, and lists what is inside the filter's window.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_and_list(const Block& block, const Run& run, const Window& window,
                                const List<kThreads, typename Run::Stored>& empty, Part& mine) {
  const float centre = window.centre, low = window.low, sure = window.sure;
  add_up<typename Run::Variant::Sum>(mine, [&](auto& sums) {
    List<kThreads, typename Run::Stored> list = empty;
    int listed = 0, beyond = 0;
    for_each_stored<kThreads>(block, run, [&](auto stored) {
      const float x = widen(stored), away = exact::magnitude(exact::difference(x, centre));
      sums.sum.add(x);
      sums.raw.add_square(x);
      if (!exact::is_greater(away, low)) return;
      list.add(stored);
      ++listed;
      beyond += exact::is_greater(away, sure) ? 1 : 0;
    });
    list.close();
    mine.listed = listed;
    mine.sure = beyond;
  });
}

/// Adds the squares of what a filter keeps, all of which is listed.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_listed(const Block& block, const Run& run, const State state, const Window& window,
                              const List<kThreads, typename Run::Stored>& list, Part& mine) {
  add_up<typename Run::Variant::Sum>(mine, [&](auto& sums) {
    list.for_each(block, run, window, [&](float x) {
      if (is_kept<Run>(state, x)) sums.measure.add_square(x);
    });
  });
}

/// Adds the centralized components of a run, whose sum is only rounding.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_centralized(const Block& block, const Run& run, Part& mine) {
  add_up<typename Run::Variant::Sum>(mine, [&](auto& sums) {
    for_each_pack<kThreads>(
        block, run, [&](auto width, int at) { return Neighbours<Run, decltype(width)::kValue>(width, run, at); },
        [&](auto& near, int) {
          STEPPE_UNROLL
          for (int j = 0; j < near.kSize; ++j) sums.sum.add(near.direction(run, j));
        });
  });
}

/// Adds the squares of the direction as known so far: centralized, filtered, scaled; and those of g where no other read
/// has added them.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_direction(const Block& block, const Run& run, const State state, Part& mine) {
  using T = typename Run::Stored;
  const bool with_raw = !run.is_centralized && !run.is_filtered;
  add_up<typename Run::Variant::Sum>(mine, [&](auto& sums) {
    for_each_pack<kThreads>(
        block, run,
        [&](auto width, int at) { return Neighbours<Run, decltype(width)::kValue>(width, run, at, run.is_scaled); },
        [&](auto& near, int) {
          STEPPE_UNROLL
          for (int j = 0; j < near.kSize; ++j) {
            if (with_raw) sums.raw.add_square(near.raw(j));
            float x = near.direction(run, j);
            if (!is_kept<Run>(state, x)) continue;
            if (run.is_scaled) {
              const float size = size_of_weight(run, widen(near.w.x[j]));
              x = rounded_to<T>(exact::product(x, size));
              sums.length.add_square(rounded_to<T>(exact::product(x, size)));
            }
            sums.measure.add_square(x);
          }
        });
  });
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
