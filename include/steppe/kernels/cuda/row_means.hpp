// The mean of every row of a chunk, for centralization.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/reduction.hpp>
#include <steppe/kernels/cuda/thread_sum.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

template <class T>
STEPPE_DEVICE float mean_of(double sum, int64_t n) {
  return rounded_to<T>(exact::as_float(sum / static_cast<double>(n)));
}

/// Sums over what one of `lanes` threads reads of a row.
template <class Run>
STEPPE_DEVICE Part sums_of_row(const Run& run, int row, int lane, int lanes) {
  constexpr int kWide = kVector<typename Run::Stored>, kVectors = Run::Variant::kBatch, kNumbers = 4;
  const auto* const g = run.g + row * run.row;
  Part mine;
  add_up<typename Run::Variant::Sum>(mine, [&](auto& sums) {
    const auto add = [&](const auto& pack, int) {
      STEPPE_UNROLL
      for (int j = 0; j < pack.kSize; ++j) {
        const float x = widen(pack.x[j]);
        sums.sum.add(x);
        sums.raw.add_square(x);
      }
    };
    if (run.is_aligned && run.row % kWide == 0)
      for_each_loaded<kVectors>(
          lane, lanes, run.row / kWide, [&](int i) { return load<kWide>(g + i * kWide); }, add);
    else
      for_each_loaded<kNumbers>(
          lane, lanes, run.row, [&](int i) { return load<1>(g + i); }, add);
  });
  return mine;
}

/// Writes the means of a chunk of whole rows and adds the squares to `mine`.
///
/// A row is summed by a team within a warp, of a size that suits its length, and one so long that a chunk has fewer of
/// them than warps by the whole block.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void find_row_means(const Block& block, Sums<kThreads>& shared, const Run& run, Part& mine) {
  using T = typename Run::Stored;
  const int rows = run.size / run.row, thread = block.thread();
  const bool by_block = run.row > 8 * kThreads;
  int team = 1;
  while (team < kWarp && team < kThreads && team * kVector<T> < run.row) team *= 2;
  if (by_block) team = kThreads;
  const int lane = thread % team;
  STEPPE_KEEP_ROLLED
  for (int first = 0; first < rows; first += kThreads / team) {
    const int row = first + thread / team;
    Part of_row;
    if (row < rows) of_row = sums_of_row(run, row, lane, team);
    mine.raw += of_row.raw;
    double sum = of_row.sum;
    if (by_block) {
      sum = sum_over_threads(block, shared, of_row).sum;
    } else {
      STEPPE_KEEP_ROLLED
      for (int half = team / 2; half > 0; half /= 2) sum += block.shuffle_down(sum, half, team);
    }
    if (lane == 0 && row < rows) run.row_means[row] = mean_of<T>(sum, run.row);
  }
  block.sync();  // before the means are read
}

/// The same for rows that are longer than a chunk: from the sums of their chunks.
template <int kThreads, class Variant, class Block>
STEPPE_DEVICE void find_cut_row_means(const Block& block, const Entry& entry, const Part* parts, float* means) {
  STEPPE_KEEP_ROLLED
  for (int64_t r = block.thread(); r < entry.cut.size / entry.cut.row; r += kThreads) {
    double sum = 0.0;
    STEPPE_KEEP_ROLLED
    for (int64_t i = 0; i < entry.cut.per_row; ++i) sum += parts[r * entry.cut.per_row + i].sum;
    with_format_of<Variant>(entry.format,
                            [&](auto format) { means[r] = mean_of<decltype(format)>(sum, entry.cut.row); });
  }
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
