// The sums over a chunk that norms and means are made of.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/list.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Adds g^2 of a run, and g where a mean may be asked for.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_sums(const Block& block, const Run& run, Part& mine) {
  for_each_pack<kThreads>(
      block, run, [&](auto width, int at) { return load<decltype(width)::kValue>(run.g + at); },
      [&](const auto& g, int) {
        STEPPE_UNROLL
        for (int j = 0; j < g.kSize; ++j) {
          const double x = exact::as_double(widen(g.x[j]));
          if (Run::Variant::kCentralizes || Run::Variant::kFilters) mine.sum += x;
          mine.raw += x * x;
        }
      });
}

/// The same, and lists what is inside the filter's window.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_and_list(const Block& block, const Run& run, const Window& window,
                                List<kThreads, typename Run::Stored> list, Part& mine) {
  const float centre = window.centre, low = window.low, sure = window.sure;
  int listed = 0, beyond = 0;
  for_each_pack<kThreads>(
      block, run, [&](auto width, int at) { return load<decltype(width)::kValue>(run.g + at); },
      [&](const auto& g, int) {
        STEPPE_UNROLL
        for (int j = 0; j < g.kSize; ++j) {
          const float raw = widen(g.x[j]), away = exact::magnitude(exact::difference(raw, centre));
          const double x = exact::as_double(raw);
          mine.sum += x;
          mine.raw += x * x;
          if (!exact::is_greater(away, low)) continue;
          list.add(g.x[j]);
          ++listed;
          beyond += exact::is_greater(away, sure) ? 1 : 0;
        }
      });
  list.close();
  mine.listed = listed;
  mine.sure = beyond;
}

/// Adds the squares of what a filter keeps, all of which is listed.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_listed(const Block& block, const Run& run, const State state, const Window& window,
                              const List<kThreads, typename Run::Stored>& list, Part& mine) {
  list.for_each(block, run, window, [&](float x) {
    if (is_kept<Run>(state, x)) mine.measure += exact::as_double(x) * exact::as_double(x);
  });
}

/// Adds the centralized components of a run, whose sum is only rounding.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_centralized(const Block& block, const Run& run, Part& mine) {
  for_each_pack<kThreads>(
      block, run, [&](auto width, int at) { return Neighbours<Run, decltype(width)::kValue>(width, run, at); },
      [&](auto& near, int) {
        STEPPE_UNROLL
        for (int j = 0; j < near.kSize; ++j) mine.sum += exact::as_double(near.direction(run, j));
      });
}

/// Adds the squares of the direction as known so far: centralized, filtered, scaled; and those of g where no other read
/// has added them.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void add_direction(const Block& block, const Run& run, const State state, Part& mine) {
  using T = typename Run::Stored;
  const bool with_raw = !run.is_centralized && !run.is_filtered;
  for_each_pack<kThreads>(
      block, run,
      [&](auto width, int at) { return Neighbours<Run, decltype(width)::kValue>(width, run, at, run.is_scaled); },
      [&](auto& near, int) {
        STEPPE_UNROLL
        for (int j = 0; j < near.kSize; ++j) {
          if (with_raw) mine.raw += exact::as_double(near.raw(j)) * exact::as_double(near.raw(j));
          float x = near.direction(run, j);
          if (!is_kept<Run>(state, x)) continue;
          if (run.is_scaled) {
            const float size = size_of_weight(run, widen(near.w.x[j]));
            x = rounded_to<T>(exact::product(x, size));
            const double u = exact::as_double(rounded_to<T>(exact::product(x, size)));
            mine.length += u * u;
          }
          mine.measure += exact::as_double(x) * exact::as_double(x);
        }
      });
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
