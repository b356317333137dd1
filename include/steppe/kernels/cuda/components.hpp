// The components of a chunk: read in vectors where memory allows it, and what the recipe does with each.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include <steppe/kernels/cuda/block.hpp>
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

/// Calls body with a value of the format's type.
template <class Body>
STEPPE_DEVICE void with_format(Format format, Body&& body) {
  switch (format) {
    case Format::Float32:
      return body(float());
    case Format::BFloat16:
      return body(BFloat16());
    case Format::Half:
      return body(Half());
  }
}

/// A chunk of one layer, and the memory behind it.
template <class T>
struct Run {
  STEPPE_DEVICE Run(const Work& of_work, const Entry& of_entry, int64_t chunk)
      : entry(of_entry),
        span(span_of(of_entry, chunk)),
        g(static_cast<const T*>(of_entry.direction)),
        w(static_cast<const T*>(of_entry.weights)),
        out(static_cast<T*>(of_entry.out)),
        row_means(of_work.row_means + of_entry.first_row + (of_entry.row > 0 ? span.begin / of_entry.row : 0)) {}

  STEPPE_DEVICE int64_t size() const { return span.end - span.begin; }

  /// Whether all its vectors are aligned.
  STEPPE_DEVICE bool is_aligned() const {
    const auto offset = [this](const void* memory) {
      return memory == nullptr
                 ? 0
                 : (reinterpret_cast<uintptr_t>(memory) + static_cast<uintptr_t>(span.begin) * sizeof(T)) % 16;
    };
    return (offset(g) | offset(w) | offset(out)) == 0;
  }

  const Entry entry;  ///< a copy, which a kernel's writes cannot alias
  Span span;
  const T* g;
  const T* w;
  T* out;
  const float* row_means;  ///< from the first row of the chunk on
};

/// The threads of the block traverse the run together: body(Width, at) for packs of neighbours from `at` on.
template <int kThreads, class Block, class T, class Body>
STEPPE_DEVICE void for_each_pack(const Block& block, const Run<T>& run, Body&& body) {
  constexpr int kWide = kVector<T>;
  const int64_t vectors = run.is_aligned() ? run.size() / kWide : 0;
  for (int64_t i = block.thread(); i < vectors; i += kThreads) body(Width<kWide>(), run.span.begin + i * kWide);
  for (int64_t i = vectors * kWide + block.thread(); i < run.size(); i += kThreads)
    body(Width<1>(), run.span.begin + i);
}

/// The row means of neighbours in sequence; zero where nothing is centralized.
template <class T>
class RowMeans {
 public:
  STEPPE_DEVICE RowMeans(const Run<T>& run, int64_t at) {
    const Entry& entry = run.entry;
    if (entry.row == 0) return;
    mean_ = run.row_means;
    if (entry.chunks_per_row > 0) return;  // the chunk is within one row
    const auto offset = static_cast<uint32_t>(at - run.span.begin);
    row_ = static_cast<uint32_t>(entry.row);
    mean_ += offset / row_;
    left_ = row_ - offset % row_;
  }

  STEPPE_DEVICE float next() {
    if (mean_ == nullptr) return 0.0f;
    const float mean = *mean_;
    if (--left_ == 0) {
      ++mean_;
      left_ = row_;
    }
    return mean;
  }

 private:
  const float* mean_ = nullptr;
  uint32_t row_ = 0, left_ = UINT32_MAX;
};

/// What is subtracted is rounded as the definition rounds it.
template <class T>
STEPPE_DEVICE float centralized(const Entry& entry, float g, float row_mean) {
  return entry.row > 0 ? rounded_to<T>(exact::difference(g, row_mean)) : g;
}

/// |x - mean|, which the filter compares.
template <class T>
STEPPE_DEVICE float distance(float x, float mean) {
  return exact::magnitude(rounded_to<T>(exact::difference(x, mean)));
}

/// |w| + eta
template <class T>
STEPPE_DEVICE float size_of_weight(const Entry& entry, float w) {
  return rounded_to<T>(exact::sum(exact::magnitude(w), entry.eta));
}

template <class T>
STEPPE_DEVICE bool is_kept(const State& state, float x) {
  return !state.filters || exact::is_greater(distance<T>(x, state.mean), state.threshold);
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
