// The sums over a chunk that norms and means are made of.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/list.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Adds g and g^2 of a run.
template <int kThreads, class Block, class T>
STEPPE_DEVICE void add_sums(const Block& block, const Run<T>& run, Part& mine) {
  for_each_pack<kThreads>(block, run, [&](auto width, int64_t at) {
    const auto g = load<decltype(width)::kValue>(run.g + at);
    STEPPE_UNROLL
    for (int j = 0; j < g.kSize; ++j) {
      const double x = exact::as_double(widen(g.x[j]));
      mine.sum += x;
      mine.raw += x * x;
    }
  });
}

/// The same, and lists what is inside the filter's window.
template <int kThreads, class Block, class T>
STEPPE_DEVICE void add_and_list(const Block& block, const Run<T>& run, const Window& window, List<kThreads, T> list,
                                Part& mine) {
  const float centre = window.centre, low = window.low, sure = window.sure;
  int listed = 0, beyond = 0;
  for_each_pack<kThreads>(block, run, [&](auto width, int64_t at) {
    const auto g = load<decltype(width)::kValue>(run.g + at);
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
template <int kThreads, class Block, class T>
STEPPE_DEVICE void add_listed(const Block& block, const Run<T>& run, const State state, const Window& window,
                              const List<kThreads, T>& list, Part& mine) {
  list.for_each(block, run, window, [&](float x) {
    if (is_kept<T>(state, x)) mine.measure += exact::as_double(x) * exact::as_double(x);
  });
}

/// Adds the centralized components of a run, whose sum is only rounding.
template <int kThreads, class Block, class T>
STEPPE_DEVICE void add_centralized(const Block& block, const Run<T>& run, Part& mine) {
  for_each_pack<kThreads>(block, run, [&](auto width, int64_t at) {
    const auto g = load<decltype(width)::kValue>(run.g + at);
    RowMeans<T> row_means(run, at);
    STEPPE_UNROLL
    for (int j = 0; j < g.kSize; ++j)
      mine.sum += exact::as_double(centralized<T>(run.entry, widen(g.x[j]), row_means.next()));
  });
}

/// Adds the squares of the direction as known so far: centralized, filtered, scaled; and those of g where no other read
/// has added them.
template <int kThreads, class Block, class T>
STEPPE_DEVICE void add_direction(const Block& block, const Run<T>& run, const State state, Part& mine) {
  const Entry& entry = run.entry;
  const bool with_raw = entry.row == 0 && entry.filtered == 0;
  for_each_pack<kThreads>(block, run, [&](auto width, int64_t at) {
    constexpr int kWidth = decltype(width)::kValue;
    const auto g = load<kWidth>(run.g + at);
    Pack<T, kWidth> w{};
    if (entry.scaled) w = load<kWidth>(run.w + at);
    RowMeans<T> row_means(run, at);
    STEPPE_UNROLL
    for (int j = 0; j < kWidth; ++j) {
      const float raw = widen(g.x[j]);
      if (with_raw) mine.raw += exact::as_double(raw) * exact::as_double(raw);
      float x = centralized<T>(entry, raw, row_means.next());
      if (!is_kept<T>(state, x)) continue;
      if (entry.scaled) {
        const float size = size_of_weight<T>(entry, widen(w.x[j]));
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
