// A stand-in for the launch of a kernel, all of whose threads run interleaved under the detector's eyes.
// SPDX-License-Identifier: MIT
#pragma once

#include <cxxabi.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "detector.hpp"

namespace steppe::races {

/// What a kernel sees of its block; see block.hpp.
class WatchedBlock {
 public:
  WatchedBlock(int index, int count, int thread) : index_(index), count_(count), thread_(thread) {}

  int index() const { return index_; }
  int count() const { return count_; }
  int thread() const { return thread_; }
  void sync() const { wait_for_block(); }
  /// __syncwarp(), which no kernel needs so far.
  void sync_warp() const { wait_for_warp(); }
  double shuffle_down(double value, int by, int width) const {
    const bool is_there = thread_ % width + by < width;
    return exchange_in_warp(value, is_there ? thread_ + by : thread_);
  }
  void publish() const { fence(); }
  template <class Count>
  Count add(Count* to, Count value) const {
    return races::add(to, value);
  }

 private:
  int index_, count_, thread_;
};

/// The kernel's type, without the namespace that it is in.
inline std::string name_of_kernel(const std::type_info& type) {
  char* const demangled = abi::__cxa_demangle(type.name(), nullptr, nullptr, nullptr);
  std::string name = demangled == nullptr ? type.name() : demangled;
  std::free(demangled);
  const std::string scope = name.substr(0, name.rfind("::", name.find('<')) + 2);
  for (size_t at = name.find(scope); at != std::string::npos; at = name.find(scope)) name.erase(at, scope.size());
  return name;
}

class WatchedLaunch {
 public:
  /// That kernels are compiled for: a part of a warp, and two warps.
  using ThreadCounts = std::integer_sequence<int, 8, 64>;

  WatchedLaunch(int threads, int64_t blocks, uint64_t seed)
      : threads_(threads), blocks_(static_cast<int>(blocks)), seed_(seed) {}

  template <class Kernel>
  void operator()(const Kernel& kernel) {
    using Shared = typename Kernel::Shared;
    struct Memory {
      alignas(16) std::byte bytes[sizeof(Shared)];
    };
    std::vector<Memory> shared(static_cast<size_t>(blocks_));
    // Shared memory is uninitialized.
    std::memset(shared.data(), 0xa5, shared.size() * sizeof(Memory));
    ++launches_;
    const uint64_t seed = seed_ * 1000 + static_cast<uint64_t>(launches_);
    run({name_of_kernel(typeid(Kernel)), blocks_, threads_, seed}, [&](int block, int thread) {
      const Kernel own = kernel;  // on the stack: parameters are no memory that threads share
      own(WatchedBlock(block, blocks_, thread), reinterpret_cast<Shared&>(shared[static_cast<size_t>(block)]));
    });
  }

  int launches() const { return launches_; }

 private:
  int threads_, blocks_;
  uint64_t seed_;
  int launches_ = 0;
};

}  // namespace steppe::races
