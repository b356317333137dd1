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
#include <steppe/kernels/cuda/variant.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

enum class Stage {
  First,     ///< every layer
  CutRows,   ///< layers whose rows are longer than a chunk, now that their means are known
  Filtered,  ///< layers whose threshold is known
};

/// A layer takes part in as few stages as its recipe allows; the last block of a stage sets its state.
template <int kThreads, class Variant>
class Sweep {
 public:
  static constexpr int kResident = Variant::kResident;
  using Shared = Sums<kThreads>;

  Sweep(const Work& work, Stage stage) : work_(work), stage_(stage) {}

  template <class Block>
  STEPPE_DEVICE void operator()(const Block& block, Shared& shared) const {
    for (int chunk = block.index(); chunk < work_.chunks; chunk += block.count()) {
      const int layer = work_.entry_of_chunk[chunk];
      const Entry& entry = work_.entries[layer];
      if (!takes_part(entry)) continue;
      Part mine;
      with_format_of<Variant>(entry.format, [&](auto format) {
        const Run<decltype(format), Variant> run(work_, entry, chunk - entry.first_chunk);
        add(block, shared, run, layer, chunk - entry.first_chunk, mine);
      });
      const Part part = sum_over_threads(block, shared, mine);
      if (block.thread() == 0) work_.parts[chunk] = part;
      if (is_last(block, shared, work_.tickets + layer, entry.chunks)) settle(block, shared, layer);
    }
  }

 private:
  STEPPE_DEVICE static bool is_cut(const Entry& entry) { return Variant::kCentralizes && entry.chunks_per_row > 0; }
  STEPPE_DEVICE static bool is_filtered(const Entry& entry) { return Variant::kFilters && entry.filtered != 0; }
  /// Stages that no layer of the variant has are left out.
  STEPPE_DEVICE bool is(Stage stage) const {
    if (stage == Stage::CutRows && !Variant::kCentralizes) return false;
    if (stage == Stage::Filtered && !Variant::kFilters) return false;
    return stage_ == stage || !(Variant::kCentralizes || Variant::kFilters);
  }

  STEPPE_DEVICE bool takes_part(const Entry& entry) const {
    return is(Stage::First) || (is(Stage::CutRows) ? is_cut(entry) : is_filtered(entry));
  }

  template <class Block, class Run>
  STEPPE_DEVICE void add(const Block& block, Shared& shared, const Run& run, int layer, int64_t chunk,
                         Part& mine) const {
    const Entry& entry = run.entry;
    if (is(Stage::Filtered)) {
      const State& state = work_.states[layer];
      if (!state.listed || !state.filters || run.is_scaled) return add_direction<kThreads>(block, run, state, mine);
      const List<kThreads, typename Run::Stored> list(work_, entry, chunk, block.thread());
      return add_listed(block, run, state, work_.windows[layer], list, mine);
    }
    if (is(Stage::First) && run.is_filtered && entry.sample > 0) {
      const List<kThreads, typename Run::Stored> list(work_, entry, chunk, block.thread());
      return add_and_list(block, run, work_.windows[layer], list, mine);
    }
    if (is(Stage::First)) {
      const bool scaled_only = run.is_scaled && !run.is_centralized && !run.is_filtered;
      if (run.is_cut || !(run.is_centralized || scaled_only)) return add_sums<kThreads>(block, run, mine);
      if (run.is_centralized) find_row_means<kThreads>(block, shared, run, mine);
    }
    // What was just read is still in the cache.
    if (run.is_filtered) return add_centralized<kThreads>(block, run, mine);
    State unfiltered{};
    add_direction<kThreads>(block, run, unfiltered, mine);
  }

  /// Called when every chunk of the layer has its part.
  template <class Block>
  STEPPE_DEVICE void settle(const Block& block, Shared& shared, int layer) const {
    const Entry& entry = work_.entries[layer];
    const Part* const parts = work_.parts + entry.first_chunk;
    const Part total = sum_over_chunks(block, shared, parts, entry.chunks);
    State& state = work_.states[layer];
    if (block.thread() == 0 && is(Stage::First)) {
      state = State{};
      state.raw = total.raw;
    }
    if (is(Stage::First) && is_cut(entry))
      return find_cut_row_means<kThreads, Variant>(block, entry, parts, work_.row_means + entry.first_row);
    if (!is(Stage::Filtered) && is_filtered(entry)) {
      if (block.thread() == 0) expect_threshold(entry, work_.windows[layer], state, total);
      return;
    }
    if (block.thread() == 0) {
      const bool plain = entry.row == 0 && entry.scaled == 0 && !is(Stage::Filtered);
      state.measure = plain ? total.raw : total.measure;
      state.length = entry.scaled != 0 ? total.length : state.measure;
    }
    if (is_last(block, shared, work_.tickets + work_.layers, work_.layers)) find_totals(block, shared, work_);
  }

  STEPPE_DEVICE static void expect_threshold(const Entry& entry, const Window& window, State& state,
                                             const Part& total) {
    with_format_of<Variant>(entry.format,
                            [&](auto format) { state.mean = mean_of<decltype(format)>(total.sum, entry.size); });
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
