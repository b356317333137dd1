// What one thread finds inside a filter's window in its part of a chunk.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include <steppe/kernels/cuda/components.hpp>
#include <steppe/kernels/cuda/work.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Components in the order in which the thread reads them, so that sums over them have one order. Where there are more
/// than fit, all are searched again in the gradient.
template <int kThreads, class T>
class List {
 public:
  static_assert(kThreads <= kMostThreads);

  STEPPE_DEVICE List(const Work& work, const Entry& entry, int64_t chunk, int thread)
      : room_(static_cast<int>(work.list_size / kThreads)) {
    const int64_t list = entry.first_list + chunk;
    count_ = work.list_counts + list * kMostThreads + thread;
    items_ = reinterpret_cast<T*>(work.lists + list * work.list_size) + thread;
  }

  STEPPE_DEVICE void add(T x) {
    if (size_ < room_) items_[size_ * kThreads] = x;
    ++size_;
  }
  STEPPE_DEVICE void close() const { *count_ = static_cast<uint16_t>(size_); }

  /// Calls body(x) for each of them.
  template <class Block, class Run, class Body>
  STEPPE_DEVICE void for_each(const Block& block, const Run& run, const Window& window, Body&& body) const {
    const int size = *count_;
    if (size <= room_) {
      STEPPE_KEEP_ROLLED
      for (int i = 0; i < size; ++i) body(widen(items_[i * kThreads]));
      return;
    }
    for_each_stored<kThreads>(block, run, [&](auto stored) {
      const float x = widen(stored);
      if (exact::is_greater(exact::magnitude(exact::difference(x, window.centre)), window.low)) body(x);
    });
  }

 private:
  uint16_t* count_;
  T* items_;
  int room_, size_ = 0;
};

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
