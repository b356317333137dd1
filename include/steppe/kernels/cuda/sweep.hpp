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

/// Every layer takes part in the stages that the plan gives it a phase in.
template <int kThreads, class Variant>
class Sweep {
 public:
  static constexpr int kResident = Variant::kResidentOfSums;
  using Shared = Sums<kThreads>;

  Sweep(const Work& work, Stage stage) : work_(work), stage_(stage) {}

  template <class Block>
  STEPPE_DEVICE void operator()(const Block& block, Shared& shared) const {
    for (int chunk = block.index(); chunk < work_.chunks; chunk += block.count()) {
      const int layer = work_.entry_of_chunk[chunk];
      const Entry& entry = work_.entries[layer];
      if (phase_of(entry) == Phase::Idle) continue;
      Part mine;
      with_format_of<Variant>(entry.format, [&](auto format) {
        const Run<decltype(format), Variant> run(work_, entry, chunk - entry.first_chunk);
        read(block, shared, run, layer, chunk - entry.first_chunk, mine);
      });
      const Part part = sum_over_threads(block, shared, mine);
      if (block.thread() == 0) work_.parts[chunk] = part;
      if (is_last(block, shared, work_.tickets + layer, entry.chunks)) settle(block, shared, layer);
    }
  }

 private:
  /// Phases that no layer of the variant has are left out of what is compiled.
  STEPPE_DEVICE Phase phase_of(const Entry& entry) const {
    if constexpr (Variant::kThings == 0)
      return Phase::Squares;
    else
      return entry.phases[static_cast<int>(stage_)];
  }

  template <class Block, class Run>
  STEPPE_DEVICE void read(const Block& block, Shared& shared, const Run& run, int layer, int64_t chunk,
                          Part& mine) const {
    [[maybe_unused]] constexpr bool kCentralizes = Variant::kCentralizes, kFilters = Variant::kFilters,
                                    kScales = Variant::kScales;
    const auto list = [&] { return List<kThreads, typename Run::Stored>(work_, run.entry, chunk, block.thread()); };
    const Phase phase = phase_of(run.entry);
    switch (phase) {
      case Phase::Squares:
      case Phase::SumsOfCutRows:
      case Phase::SumsToFilter:
        return add_sums<kThreads>(block, run, mine);
      case Phase::SumsAndList:
        if constexpr (kFilters) add_and_list(block, run, work_.windows[layer], list(), mine);
        return;
      // After the means, what was just read is still in the cache.
      case Phase::RowsToFilter:
      case Phase::CentralizedToFilter:
        if constexpr (kCentralizes && kFilters) {
          if (phase == Phase::RowsToFilter) find_row_means<kThreads>(block, shared, run, mine);
          add_centralized<kThreads>(block, run, mine);
        }
        return;
      case Phase::RowsAndDirection:
      case Phase::Direction:
        assume(run.is_centralized || run.is_scaled);  // else no layer has this phase
        if constexpr (kCentralizes)
          if (phase == Phase::RowsAndDirection) find_row_means<kThreads>(block, shared, run, mine);
        if constexpr (kCentralizes || kScales) add_direction<kThreads>(block, run, State{}, mine);
        return;
      case Phase::Kept:
        if constexpr (kFilters) {
          const State& state = work_.states[layer];
          if (!state.listed || !state.filters || run.is_scaled) return add_direction<kThreads>(block, run, state, mine);
          add_listed(block, run, state, work_.windows[layer], list(), mine);
        }
        return;
      case Phase::Idle:
        return;
    }
  }

  /// Called when every chunk of the layer has its part.
  template <class Block>
  STEPPE_DEVICE void settle(const Block& block, Shared& shared, int layer) const {
    const Entry& entry = work_.entries[layer];
    const Phase phase = phase_of(entry);
    const Part* const parts = work_.parts + entry.first_chunk;
    const Part total = sum_over_chunks(block, shared, parts, entry.chunks);
    State& state = work_.states[layer];
    if (block.thread() == 0 && stage_ == Stage::First) {
      state = State{};
      state.raw = total.raw;
    }
    switch (phase) {
      case Phase::SumsOfCutRows:
        if constexpr (Variant::kCentralizes)
          find_cut_row_means<kThreads, Variant>(block, entry, parts, work_.row_means + entry.first_row);
        return;
      case Phase::SumsToFilter:
      case Phase::SumsAndList:
      case Phase::RowsToFilter:
      case Phase::CentralizedToFilter:
        if constexpr (Variant::kFilters)
          if (block.thread() == 0) expect_threshold(entry, work_.windows[layer], state, total);
        return;
      case Phase::Squares:
      case Phase::RowsAndDirection:
      case Phase::Direction:
      case Phase::Kept:
        if (block.thread() == 0) {
          state.measure = phase == Phase::Squares ? total.raw : total.measure;
          state.length = entry.scaled != 0 ? total.length : state.measure;
        }
        if (is_last(block, shared, work_.tickets + work_.layers, work_.layers)) find_totals(block, shared, work_);
        return;
      case Phase::Idle:
        return;
    }
  }

  STEPPE_DEVICE static void expect_threshold(const Entry& entry, const Window& window, State& state,
                                             const Part& total) {
    with_format_of<Variant>(entry.format,
                            [&](auto format) { state.mean = mean_of<decltype(format)>(total.sum, entry.cut.size); });
    state.rank = entry.rank;
    if (entry.sample == 0) return;
    state.listed = exact::is_greater(exact::product(window.reach, 1.0f - 1e-6f),
                                     exact::magnitude(exact::difference(state.mean, window.centre))) &&
                   total.sure >= entry.cut.size - entry.rank;
    // Everything else is nearer to the mean.
    if (state.listed) state.rank -= entry.cut.size - total.listed;
  }

  Work work_;
  Stage stage_;
};

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
