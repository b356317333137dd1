// Counts what the program and every library in it ask of the C library's heap.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace benchmarks {

struct Allocations {
  int64_t calls = 0, bytes = 0;
  int64_t peak = 0;  ///< the most that was held at once, beyond what was at the beginning
};

/// From its construction on, on all threads; one at a time.
class CountedAllocations {
 public:
  CountedAllocations();
  CountedAllocations(const CountedAllocations&) = delete;
  CountedAllocations& operator=(const CountedAllocations&) = delete;
  ~CountedAllocations();

  Allocations so_far() const;
};

}  // namespace benchmarks
