// One read of the layers: its sums per chunk are combined per layer, and finally for the model.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/list.hpp>
#include <steppe/kernels/cuda/measure.hpp>
#include <steppe/kernels/cuda/reduction.hpp>
#include <steppe/kernels/cuda/row_means.hpp>
#include <steppe/kernels/cuda/totals.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

enum class Stage {
  First,     ///< every layer
  CutRows,   ///< layers whose rows are longer than a chunk, now that their means are known
  Filtered,  ///< layers whose threshold is known
};

/// A layer takes part in as few stages as its recipe allows; the last block of a stage sets its state.
template <int kThreads>
class Sweep {
 public:
  using Shared = Sums<kThreads>;

  Sweep(const Work& work, Stage stage) : work_(work), stage_(stage) {}

  template <class Block>
  STEPPE_DEVICE void operator()(const Block& block, Shared& shared) const {
    for (int64_t chunk = block.index(); chunk < work_.chunks; chunk += block.count()) {
      const int64_t layer = work_.entry_of_chunk[chunk];
      const Entry& entry = work_.entries[layer];
      if (!takes_part(entry)) continue;
      Part mine;
      with_format(entry.format, [&](auto format) {
        const Run<decltype(format)> run(work_, entry, chunk - entry.first_chunk);
        add(block, shared, run, layer, chunk - entry.first_chunk, mine);
      });
      const Part part = sum_over_threads(block, shared, mine);
      if (block.thread() == 0) work_.parts[chunk] = part;
      if (is_last(block, shared, work_.tickets + layer, entry.chunks)) settle(block, shared, layer);
    }
  }

 private:
  STEPPE_DEVICE static bool is_cut(const Entry& entry) { return entry.chunks_per_row > 0; }

  STEPPE_DEVICE bool takes_part(const Entry& entry) const {
    return stage_ == Stage::First || (stage_ == Stage::CutRows ? is_cut(entry) : entry.filtered != 0);
  }

  template <class Block, class T>
  STEPPE_DEVICE void add(const Block& block, Shared& shared, const Run<T>& run, int64_t layer, int64_t chunk,
                         Part& mine) const {
    const Entry& entry = run.entry;
    if (stage_ == Stage::Filtered) {
      const State& state = work_.states[layer];
      if (!state.listed || !state.filters || entry.scaled != 0) return add_direction<kThreads>(block, run, state, mine);
      const List<kThreads, T> list(work_, entry, chunk, block.thread());
      return add_listed(block, run, state, work_.windows[layer], list, mine);
    }
    if (stage_ == Stage::First && entry.sample > 0) {
      const List<kThreads, T> list(work_, entry, chunk, block.thread());
      return add_and_list(block, run, work_.windows[layer], list, mine);
    }
    if (stage_ == Stage::First) {
      const bool scaled_only = entry.row == 0 && entry.filtered == 0 && entry.scaled != 0;
      if (is_cut(entry) || (entry.row == 0 && !scaled_only)) return add_sums<kThreads>(block, run, mine);
      if (entry.row > 0)
        find_row_means<kThreads>(block, shared, run, work_.row_means + entry.first_row + run.span.begin / entry.row,
                                 mine);
    }
    // What was just read is still in the cache.
    if (entry.filtered != 0) return add_centralized<kThreads>(block, run, mine);
    State unfiltered{};
    add_direction<kThreads>(block, run, unfiltered, mine);
  }

  /// Called when every chunk of the layer has its part.
  template <class Block>
  STEPPE_DEVICE void settle(const Block& block, Shared& shared, int64_t layer) const {
    const Entry& entry = work_.entries[layer];
    const Part* const parts = work_.parts + entry.first_chunk;
    const Part total = sum_over_chunks(block, shared, parts, entry.chunks);
    State& state = work_.states[layer];
    if (block.thread() == 0 && stage_ == Stage::First) {
      state = State{};
      state.raw = total.raw;
    }
    if (stage_ == Stage::First && is_cut(entry))
      return find_cut_row_means<kThreads>(block, entry, parts, work_.row_means + entry.first_row);
    if (stage_ != Stage::Filtered && entry.filtered != 0) {
      if (block.thread() == 0) expect_threshold(entry, work_.windows[layer], state, total);
      return;
    }
    if (block.thread() == 0) {
      const bool plain = entry.row == 0 && entry.scaled == 0 && stage_ != Stage::Filtered;
      state.measure = plain ? total.raw : total.measure;
      state.length = entry.scaled != 0 ? total.length : state.measure;
    }
    if (is_last(block, shared, work_.tickets + work_.layers, work_.layers)) find_totals(block, shared, work_);
  }

  STEPPE_DEVICE static void expect_threshold(const Entry& entry, const Window& window, State& state,
                                             const Part& total) {
    with_format(entry.format, [&](auto format) { state.mean = mean_of<decltype(format)>(total.sum, entry.size); });
    state.rank = entry.rank;
    if (entry.sample == 0) return;
    state.listed = exact::is_greater(exact::product(window.reach, 1.0f - 1e-6f),
                                     exact::magnitude(exact::difference(state.mean, window.centre))) &&
                   total.sure >= entry.size - entry.rank;
    // Everything else is nearer to the mean.
    if (state.listed) state.rank -= entry.size - total.listed;
  }

  Work work_;
  Stage stage_;
};

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
