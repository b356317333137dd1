// The program's own malloc replaces glibc's, in shared libraries too; operator new and LibTorch's allocator call it.
// SPDX-License-Identifier: MIT
#include "counted_allocations.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <malloc.h>

#ifndef __GLIBC__
#error "Allocations are counted over glibc only"
#endif

namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> calls{0}, bytes{0}, held{0}, peak{0};

bool is_counting() { return counting.load(std::memory_order_relaxed); }

void hold(void* block) {
  const auto size = static_cast<int64_t>(malloc_usable_size(block));
  const int64_t now = held.fetch_add(size, std::memory_order_relaxed) + size;
  int64_t most = peak.load(std::memory_order_relaxed);
  while (now > most && !peak.compare_exchange_weak(most, now, std::memory_order_relaxed)) {
  }
}

void let_go(void* block) {
  if (is_counting()) held.fetch_sub(static_cast<int64_t>(malloc_usable_size(block)), std::memory_order_relaxed);
}

void* counted(void* block, size_t size) {
  if (is_counting()) {
    calls.fetch_add(1, std::memory_order_relaxed);
    bytes.fetch_add(static_cast<int64_t>(size), std::memory_order_relaxed);
    hold(block);
  }
  return block;
}

}  // namespace

extern "C" {

void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* block, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* block);

void* malloc(size_t size) noexcept { return counted(__libc_malloc(size), size); }
void* calloc(size_t count, size_t size) noexcept { return counted(__libc_calloc(count, size), count * size); }
void* realloc(void* block, size_t size) noexcept {
  let_go(block);
  return counted(__libc_realloc(block, size), size);
}
void free(void* block) noexcept {
  let_go(block);
  __libc_free(block);
}
void* memalign(size_t alignment, size_t size) noexcept { return counted(__libc_memalign(alignment, size), size); }
void* aligned_alloc(size_t alignment, size_t size) noexcept { return memalign(alignment, size); }

int posix_memalign(void** block, size_t alignment, size_t size) noexcept {
  *block = memalign(alignment, size);
  return *block == nullptr ? ENOMEM : 0;
}

}  // extern "C"

namespace benchmarks {

CountedAllocations::CountedAllocations() {
  calls = 0;
  bytes = 0;
  held = 0;
  peak = 0;
  counting = true;
}

CountedAllocations::~CountedAllocations() { counting = false; }

Allocations CountedAllocations::so_far() const { return {calls, bytes, peak}; }

}  // namespace benchmarks
