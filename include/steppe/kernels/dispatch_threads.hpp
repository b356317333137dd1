// LibTorch's threads for the CPU kernels.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::detail {

/// LibTorch's own threads (at::set_num_threads). Without OpenMP in the compiler's flags at::parallel_for is serial.
class AtenThreads {
 public:
  /// Less work than this takes about as long as starting other threads, and less where they have to wait for a core.
  static constexpr int64_t kSerial = int64_t{1} << 19;

  explicit AtenThreads(int64_t components) : count_(components < kSerial ? 1 : most()) {}
  /// At most one for every `each` components.
  AtenThreads(int64_t components, int64_t each)
      : count_(static_cast<int>(std::clamp<int64_t>(components / each, 1, most()))) {}

  int count() const { return count_; }

  template <class Body>
  void run(int64_t tasks, Body&& body) const {
    const int64_t threads = std::min<int64_t>(count_, tasks);
    if (threads <= 1) {
      for (int64_t task = 0; task < tasks; ++task) body(task, 0);
      return;
    }
    std::atomic<int64_t> next{0};
    at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
      for (int64_t thread = first; thread < last; ++thread)
        for (int64_t task = next++; task < tasks; task = next++) body(task, static_cast<int>(thread));
    });
  }

 private:
  static int most() { return (std::max)(at::get_num_threads(), 1); }

  int count_;
};

}  // namespace kernels::detail
STEPPE_NAMESPACE_END
