// The components of a chunk: read in vectors where memory allows it, and what the recipe does with each.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include <steppe/kernels/cuda/block.hpp>
#include <steppe/kernels/cuda/variant.hpp>
#include <steppe/kernels/cuda/work.hpp>
#include <steppe/kernels/formats.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Neighbours that are read and written at once.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  static constexpr int kSize = kCount;
  T x[kCount];
};

/// Components of a 128-bit vector.
template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

template <int kCount, class T>
STEPPE_DEVICE Pack<T, kCount> load(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}
template <int kCount, class T>
STEPPE_DEVICE void store(T* to, const Pack<T, kCount>& pack) {
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

/// The number of components in a pack, known to the compiler.
template <int kCount>
struct Width {
  static constexpr int kValue = kCount;
};

/// A chunk of one layer, and the memory behind it; positions count from its first component.
template <class T, class V>
struct Run {
  using Stored = T;
  using Variant = V;

  STEPPE_DEVICE Run(const Work& work, const Entry& of_entry, int64_t chunk)
      : entry(of_entry),
        is_centralized(V::kCentralizes && entry.cut.row > 0),
        is_cut(V::kCentralizes && entry.cut.cut_rows()),
        is_filtered(V::kFilters && entry.filtered != 0),
        is_scaled(V::kScales && entry.scaled != 0),
        eta(entry.eta) {
    const Span span = entry.cut.span(chunk);
    size = static_cast<int>(span.end - span.begin);
    g = global(static_cast<const T*>(entry.direction)) + span.begin;
    w = global(static_cast<const T*>(entry.weights)) + span.begin;
    out = entry.out == nullptr ? nullptr : global(static_cast<T*>(entry.out)) + span.begin;
    const auto offset = [](const T* memory) { return reinterpret_cast<uintptr_t>(memory) % 16; };
    is_aligned = (offset(g) | offset(w) | offset(out)) == 0;
    if constexpr (V::kCentralizes) {
      if (!is_centralized) return;
      row_means = work.row_means + entry.first_row + span.begin / entry.cut.row;
      if (is_cut) return;  // all in one row
      row = static_cast<int>(entry.cut.row);
      inverse_row = (1u << 31) / static_cast<uint32_t>(row) + 1;
    }
  }

  /// The row that a position is in: `at / row` for positions below kLargestChunk.
  STEPPE_DEVICE int row_of(int at) const {
    return static_cast<int>((static_cast<uint64_t>(static_cast<uint32_t>(at)) * inverse_row) >> 31);
  }

  const Entry& entry;
  // Copies, which a kernel's writes cannot alias.
  bool is_centralized, is_cut;  ///< whether rows are longer than a chunk
  bool is_filtered, is_scaled;
  float eta;
  int size;
  bool is_aligned;  ///< whether all its vectors are
  const T* g;
  const T* w;
  T* out;
  float* row_means = nullptr;  ///< from its first row on, if it is centralized
  int row = 1 << 30;           ///< components of a row; more than there are where all are in one
  uint32_t inverse_row = 0;
};

/// Calls use(load(i), i) for i = first, first + apart, ... below `count`, in this order.
template <int kAtOnce, class Load, class Use>
STEPPE_DEVICE void for_each_loaded(int first, int apart, int count, Load&& load, Use&& use) {
  int i = first;
  STEPPE_KEEP_ROLLED
  for (; kAtOnce > 1 && i < count - (kAtOnce - 1) * apart; i += kAtOnce * apart) {
    decltype(load(0)) loaded[kAtOnce];
    STEPPE_UNROLL
    for (int k = 0; k < kAtOnce; ++k) loaded[k] = load(i + k * apart);
    STEPPE_UNROLL
    for (int k = 0; k < kAtOnce; ++k) use(loaded[k], i + k * apart);
  }
  STEPPE_KEEP_ROLLED
  for (; i < count; i += apart) {
    auto loaded = load(i);
    use(loaded, i);
  }
}

/// The threads of the block traverse the run together: load(Width, at) for packs of neighbours from `at` on, and
/// use(loaded, at) with what it returns.
template <int kThreads, class Block, class Run, class Load, class Use>
STEPPE_DEVICE void for_each_pack(const Block& block, const Run& run, Load&& load, Use&& use) {
  constexpr int kWide = kVector<typename Run::Stored>;
  const int vectors = run.is_aligned ? run.size / kWide : 0;
  for_each_loaded<Run::Variant::kBatch>(
      block.thread(), kThreads, vectors, [&](int i) { return load(Width<kWide>(), i * kWide); },
      [&](auto& loaded, int i) { use(loaded, i * kWide); });
  for_each_loaded<1>(
      vectors * kWide + block.thread(), kThreads, run.size, [&](int at) { return load(Width<1>(), at); }, use);
}

/// Calls use(x) for every component of the gradient, as it is stored.
template <int kThreads, class Block, class Run, class Use>
STEPPE_DEVICE void for_each_stored(const Block& block, const Run& run, Use&& use) {
  for_each_pack<kThreads>(
      block, run, [&](auto width, int at) { return load<decltype(width)::kValue>(run.g + at); },
      [&](const auto& g, int) {
        STEPPE_UNROLL
        for (int j = 0; j < g.kSize; ++j) use(g.x[j]);
      });
}

/// The row means of neighbours in sequence; zero where nothing is centralized.
template <class Run>
class RowMeans {
 public:
  RowMeans() = default;
  STEPPE_DEVICE RowMeans(const Run& run, int at) {
    if constexpr (Run::Variant::kCentralizes) {
      row_ = run.row_of(at);
      left_ = run.row - (at - row_ * run.row);
      if (run.is_centralized) mean_ = run.row_means[row_];
    }
  }

  STEPPE_DEVICE float next(const Run& run) {
    if (left_ == 0) {
      left_ = run.row;
      mean_ = run.row_means[++row_];
    }
    --left_;
    return mean_;
  }

 private:
  float mean_ = 0.0f;
  int row_ = 0, left_ = 0;
};

/// What is read of neighbours; `w` only where it is asked for.
template <class Run, int kCount>
class Neighbours {
 public:
  static constexpr int kSize = kCount;

  Neighbours() = default;
  STEPPE_DEVICE Neighbours(Width<kCount>, const Run& run, int at, bool with_weights = false)
      : g_(load<kCount>(run.g + at)), row_means_(run, at) {
    if (with_weights) w = load<kCount>(run.w + at);
  }

  STEPPE_DEVICE float raw(int j) const { return widen(g_.x[j]); }
  /// Centralized, where the layer is; to be asked for in sequence. The difference is rounded as the definition rounds
  /// it.
  STEPPE_DEVICE float direction(const Run& run, int j) {
    if constexpr (Run::Variant::kCentralizes)
      return rounded_to<typename Run::Stored>(exact::difference(raw(j), row_means_.next(run)));
    else
      return raw(j);
  }

  Pack<typename Run::Stored, kCount> w;

 private:
  Pack<typename Run::Stored, kCount> g_;
  RowMeans<Run> row_means_;
};

/// |x - mean|, which the filter compares.
template <class T>
STEPPE_DEVICE float distance(float x, float mean) {
  return exact::magnitude(rounded_to<T>(exact::difference(x, mean)));
}

/// |w| + eta
template <class Run>
STEPPE_DEVICE float size_of_weight(const Run& run, float w) {
  return rounded_to<typename Run::Stored>(exact::sum(exact::magnitude(w), run.eta));
}

template <class Run>
STEPPE_DEVICE bool is_kept([[maybe_unused]] const State& state, [[maybe_unused]] float x) {
  if constexpr (Run::Variant::kFilters)
    return !state.filters || exact::is_greater(distance<typename Run::Stored>(x, state.mean), state.threshold);
  else
    return true;
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
