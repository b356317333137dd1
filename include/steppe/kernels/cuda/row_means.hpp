// The mean of every row of a chunk, for centralization.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/reduction.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

template <class T>
STEPPE_DEVICE float mean_of(double sum, int64_t n) {
  return rounded_to<T>(exact::as_float(sum / static_cast<double>(n)));
}

/// Writes the means of a chunk of whole rows and adds the squares to `mine`.
///
/// Teams of threads, of a size that suits the length of a row, process one row each.
template <int kThreads, class Block, class Run>
STEPPE_DEVICE void find_row_means(const Block& block, Sums<kThreads>& shared, const Run& run, Part& mine) {
  using T = typename Run::Stored;
  const int64_t row = run.row, rows = run.size / row;
  int team = 1;
  while (team < kThreads && team * 4 < row) team *= 2;
  const int thread = block.thread(), lane = thread % team;
  for (int64_t first = 0; first < rows; first += kThreads / team) {
    const int64_t r = first + thread / team;
    double sum = 0.0;
    for (int64_t i = lane; r < rows && i < row; i += team) {
      const double g = exact::as_double(widen(run.g[r * row + i]));
      sum += g;
      mine.raw += g * g;
    }
    shared.parts[thread].sum = sum;
    block.sync();
    for (int half = team / 2; half > 0; half /= 2) {
      if (lane < half) shared.parts[thread].sum += shared.parts[thread + half].sum;
      block.sync();
    }
    if (lane == 0 && r < rows) run.row_means[r] = mean_of<T>(shared.parts[thread].sum, row);
    block.sync();
  }
}

/// The same for rows that are longer than a chunk: from the sums of their chunks.
template <int kThreads, class Variant, class Block>
STEPPE_DEVICE void find_cut_row_means(const Block& block, const Entry& entry, const Part* parts, float* means) {
  STEPPE_KEEP_ROLLED
  for (int64_t r = block.thread(); r < entry.size / entry.row; r += kThreads) {
    double sum = 0.0;
    STEPPE_KEEP_ROLLED
    for (int64_t i = 0; i < entry.chunks_per_row; ++i) sum += parts[r * entry.chunks_per_row + i].sum;
    with_format_of<Variant>(entry.format, [&](auto format) { means[r] = mean_of<decltype(format)>(sum, entry.row); });
  }
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
