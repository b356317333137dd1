// Counts the allocations of the program and its libraries on the C library's heap.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace benchmarks {

struct Allocations {
  int64_t calls = 0, bytes = 0;
  int64_t peak = 0;  ///< the most that was held at once, beyond what was held at the beginning
};

/// Counts from its construction on, on all threads. Only one may exist at a time.
class CountedAllocations {
 public:
  CountedAllocations();
  CountedAllocations(const CountedAllocations&) = delete;
  CountedAllocations& operator=(const CountedAllocations&) = delete;
  ~CountedAllocations();

  Allocations so_far() const;
};

}  // namespace benchmarks
