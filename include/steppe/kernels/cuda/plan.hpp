// How the layers of a model are cut into chunks, as tables that the device reads.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <steppe/kernels/cuda/layer.hpp>
#include <steppe/kernels/layer.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Components that a block processes at a time.
constexpr int64_t kChunk = int64_t{1} << 14;
/// At most; positions in a chunk are divided by the length of a row with 31 bits.
constexpr int64_t kLargestChunk = int64_t{1} << 15;
static_assert(kChunk <= kLargestChunk);

/// Components of a layer that a filter's window is drawn from; layers of less than four times as many have none.
constexpr int64_t kSample = 4096;
/// Neighbours that are sampled together.
constexpr int64_t kSampledLine = 16;

/// Threads of a block at most.
constexpr int kMostThreads = 256;

/// Bins of one level of a threshold's histograms.
constexpr int kBins = 2048;

/// Reads of all layers, one after the other.
enum class Stage : int32_t {
  First,     ///< every layer
  CutRows,   ///< layers whose rows are longer than a chunk, now that their means are known
  Filtered,  ///< layers whose threshold is known
};
constexpr int kStages = 3;

/// What a stage reads of a layer, and what is then known of it.
enum class Phase : int32_t {
  Idle,
  Squares,              ///< squares of g: the norms
  SumsOfCutRows,        ///< sums of parts of rows: the means of the rows
  SumsToFilter,         ///< sums of g: its mean, about which it is filtered
  SumsAndList,          ///< the same, and lists what is inside the window
  RowsToFilter,         ///< the means of the rows and the sums of what is centralized: its mean
  CentralizedToFilter,  ///< those sums where the means are known: its mean
  RowsAndDirection,     ///< the means of the rows and the squares of the direction: the norms
  Direction,            ///< the squares of the direction: the norms
  Kept,                 ///< the squares of what the filter keeps: the norms
};

/// A layer as the device sees it. It has no padding, so that tables can be compared as bytes.
struct Entry {
  const void* direction;
  const void* weights;
  void* out;
  Pieces cut;    ///< the chunks
  int64_t rank;  ///< of the threshold among the distances, ascending
  int64_t first_chunk, chunks;
  int64_t first_row;  ///< of the row means
  int64_t histogram;
  int64_t sample;      ///< components that the filter's window is drawn from; 0: it has none
  int64_t first_list;  ///< of the components inside, one list for each chunk
  double rho;
  Norm norm;
  float eta;
  Format format;
  int32_t filtered, scaled, counted;
  Phase phases[kStages];
};
static_assert(sizeof(Entry) == 3 * sizeof(void*) + 13 * 8 + 8 * 4);

/// What the layers of a launch need together.
struct Needs {
  Format format = Format::Float32;  ///< if they share one
  bool several_formats = false, centralization = false, filter = false, scale = false;
};

/// Where the parts of one piece of memory begin, in bytes.
class Carving {
 public:
  template <class T>
  int64_t take(int64_t count) {
    const int64_t begin = end_;
    end_ += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return begin;
  }
  int64_t bytes() const { return end_; }

 private:
  static constexpr int64_t kAlignment = 32;
  int64_t end_ = 0;
};

/// The tables of an ascent: entries, one for each layer, and for each chunk the layer that it belongs to.
class Plan {
 public:
  /// `sample`: whole lines, kSample at most.
  explicit Plan(int64_t chunk = kChunk, int64_t sample = kSample) : chunk_(chunk), sample_(sample) {}

  /// Plans the layers, at least one. Throws std::invalid_argument for Format::Float64, which the kernels do not know.
  void describe(const std::vector<Layer>& layers) {
    chunks_ = rows_ = histograms_ = lists_ = 0;
    cuts_rows_ = false;
    needs_ = Needs();
    needs_.format = layers.front().format;
    entries_.clear();
    for (const Layer& layer : layers) entries_.push_back(entry_of(layer));
    const size_t of_entries = entries_.size() * sizeof(Entry);
    table_.resize(of_entries + static_cast<size_t>(chunks_) * sizeof(int32_t));
    std::memcpy(table_.data(), entries_.data(), of_entries);
    for (size_t i = 0; i < entries_.size(); ++i) {
      const auto index = static_cast<int32_t>(i);
      for (int64_t k = 0; k < entries_[i].chunks; ++k)
        std::memcpy(table_.data() + of_entries + static_cast<size_t>(entries_[i].first_chunk + k) * sizeof(int32_t),
                    &index, sizeof(index));
    }
  }

  /// To be copied to the device before the ascent.
  const std::vector<std::byte>& table() const { return table_; }

  int64_t layers() const { return static_cast<int64_t>(entries_.size()); }
  int64_t chunks() const { return chunks_; }
  int64_t rows() const { return rows_; }
  int64_t histograms() const { return histograms_; }
  /// Chunks of the layers that have a window, and the components that the list of one holds.
  int64_t lists() const { return lists_; }
  int64_t list_size() const { return chunk_ / 4; }
  /// Whether some row is longer than a chunk.
  bool cuts_rows() const { return cuts_rows_; }
  const Needs& needs() const { return needs_; }

 private:
  Entry entry_of(const Layer& layer) {
    if (layer.format == Format::Float64)
      throw std::invalid_argument(
          "steppe: the CUDA kernels take float32, bfloat16 and float16, but a layer is float64");
    Entry entry{};
    entry.direction = layer.direction;
    entry.weights = layer.weights;
    entry.out = layer.rho > 0.0 ? layer.out : nullptr;
    entry.cut = Pieces::of(layer.size, layer.size > 0 ? layer.row : 0, chunk_);
    // A layer without components has a chunk too: every layer is finished by its last one.
    entry.chunks = std::max<int64_t>(entry.cut.count(), 1);
    cuts_rows_ |= entry.cut.cut_rows();
    entry.rho = layer.rho;
    entry.norm = layer.norm;
    entry.eta = static_cast<float>(layer.eta);
    entry.format = layer.format;
    entry.filtered = layer.filtered;
    entry.scaled = layer.scaled;
    entry.counted = layer.counted;
    const auto rank = static_cast<int64_t>(std::floor(layer.quantile * static_cast<double>(layer.size - 1)));
    entry.rank = std::clamp<int64_t>(rank, 0, std::max<int64_t>(layer.size - 1, 0));
    entry.first_chunk = chunks_;
    entry.first_row = rows_;
    entry.histogram = histograms_;
    entry.first_list = lists_;
    // Centralized components are not known before the row means are.
    if (layer.filtered && entry.cut.row == 0 && entry.cut.size >= 4 * sample_) {
      entry.sample = sample_;
      lists_ += entry.chunks;
    }
    set_phases(entry);
    chunks_ += entry.chunks;
    rows_ += entry.cut.row > 0 ? entry.cut.size / entry.cut.row : 0;
    histograms_ += entry.filtered;
    needs_.several_formats |= entry.format != needs_.format;
    needs_.centralization |= entry.cut.row > 0;
    needs_.filter |= layer.filtered;
    needs_.scale |= layer.scaled;
    return entry;
  }

  static void set_phases(Entry& entry) {
    const auto in = [&entry](Stage stage) -> Phase& { return entry.phases[static_cast<int>(stage)]; };
    Phase &first = in(Stage::First), &cut_rows = in(Stage::CutRows), &filtered = in(Stage::Filtered);
    const bool filters = entry.filtered != 0;
    if (entry.cut.cut_rows()) {
      first = Phase::SumsOfCutRows;
      cut_rows = filters ? Phase::CentralizedToFilter : Phase::Direction;
    } else if (entry.cut.row > 0) {
      first = filters ? Phase::RowsToFilter : Phase::RowsAndDirection;
    } else if (filters) {
      first = entry.sample > 0 ? Phase::SumsAndList : Phase::SumsToFilter;
    } else {
      first = entry.scaled != 0 ? Phase::Direction : Phase::Squares;
    }
    if (filters) filtered = Phase::Kept;
  }

  int64_t chunk_, sample_;
  std::vector<Entry> entries_;
  std::vector<std::byte> table_;
  int64_t chunks_ = 0, rows_ = 0, histograms_ = 0, lists_ = 0;
  bool cuts_rows_ = false;
  Needs needs_;
};

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
