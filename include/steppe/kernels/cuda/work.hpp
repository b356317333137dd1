// The memory of an ascent on the device, as its kernels see it.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/block.hpp>
#include <steppe/kernels/cuda/plan.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Sums over a chunk or a layer.
struct Part {
  double sum = 0.0;      ///< of x
  double raw = 0.0;      ///< of g^2
  double measure = 0.0;  ///< of (T d)^2
  double length = 0.0;   ///< of (T T d)^2
  int64_t listed = 0;    ///< components inside the filter's window
  int64_t sure = 0;      ///< of those, the ones that the threshold cannot be beyond, if the window is valid

  STEPPE_DEVICE Part& operator+=(const Part& other) {
    sum += other.sum;
    raw += other.raw;
    measure += other.measure;
    length += other.length;
    listed += other.listed;
    sure += other.sure;
    return *this;
  }
};

/// What is known of a layer so far.
struct State {
  double raw, measure, length;
  int64_t rank;   ///< of the threshold among the distances whose upper bits are `key`
  int64_t above;  ///< distances beyond those
  uint32_t key;   ///< the upper bits of the threshold
  float mean, threshold;
  bool filters;  ///< whether what is not above the threshold is removed
  bool listed;   ///< whether the window contains the threshold and everything above it
};

/// Where a filter's threshold most likely is: among the components that are farther than `low` from `centre`.
struct Window {
  float centre, low;
  float reach;  ///< it is valid if the mean is no farther than this from `centre`
  float sure;   ///< and if enough components are farther than this from it
};

using Count = unsigned long long;

/// The arguments of a launch.
struct Work {
  const Entry* entries;
  const int32_t* entry_of_chunk;
  int64_t layers, chunks;
  State* states;
  Part* parts;  ///< of every chunk
  float* row_means;
  float* factors;         ///< of every layer
  unsigned* tickets;      ///< of every layer, then one of the model; zero between launches
  Count* histograms;      ///< of every filtered layer; zero between launches
  Window* windows;        ///< of every layer
  uint16_t* list_counts;  ///< of every list and thread
  float* lists;           ///< of `list_size` components of any format
  int64_t list_size;
  Results results;
};

/// Lays out the memory of an ascent.
inline Work work_of(const Plan& plan, const void* table, void* scratch, const Results& results,
                    int64_t* bytes = nullptr) {
  Carving carving;
  const int64_t tickets = carving.take<unsigned>(plan.layers() + 1);
  const int64_t histograms = carving.take<Count>(plan.histograms() * kBins);
  const int64_t states = carving.take<State>(plan.layers());
  const int64_t parts = carving.take<Part>(plan.chunks());
  const int64_t row_means = carving.take<float>(plan.rows());
  const int64_t factors = carving.take<float>(plan.layers());
  const int64_t windows = carving.take<Window>(plan.layers());
  const int64_t list_counts = carving.take<uint16_t>(plan.lists() * kMostThreads);
  const int64_t lists = carving.take<float>(plan.lists() * plan.list_size());
  if (bytes != nullptr) *bytes = carving.bytes();
  const auto* const tables = static_cast<const unsigned char*>(table);
  auto* const memory = static_cast<unsigned char*>(scratch);
  const auto at = [memory](int64_t offset) -> void* { return memory == nullptr ? nullptr : memory + offset; };
  Work work{};
  work.entries = reinterpret_cast<const Entry*>(tables);
  if (tables != nullptr)
    work.entry_of_chunk =
        reinterpret_cast<const int32_t*>(tables + plan.layers() * static_cast<int64_t>(sizeof(Entry)));
  work.layers = plan.layers();
  work.chunks = plan.chunks();
  work.states = static_cast<State*>(at(states));
  work.parts = static_cast<Part*>(at(parts));
  work.row_means = static_cast<float*>(at(row_means));
  work.factors = static_cast<float*>(at(factors));
  work.tickets = static_cast<unsigned*>(at(tickets));
  work.histograms = static_cast<Count*>(at(histograms));
  work.windows = static_cast<Window*>(at(windows));
  work.list_counts = static_cast<uint16_t*>(at(list_counts));
  work.lists = static_cast<float*>(at(lists));
  work.list_size = plan.list_size();
  work.results = results;
  return work;
}

/// The bytes that an ascent needs besides its table. They are zero before the first ascent, and before the first one of
/// a plan with another number of layers, chunks, rows, histograms or lists.
inline int64_t scratch_bytes(const Plan& plan) {
  int64_t bytes = 0;
  work_of(plan, nullptr, nullptr, Results(), &bytes);
  return bytes;
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
