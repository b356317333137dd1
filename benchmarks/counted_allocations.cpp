// The program's own malloc takes the place of glibc's, in shared libraries too; operator new and LibTorch's allocator
// end there.
// SPDX-License-Identifier: MIT
#include "counted_allocations.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#ifndef __GLIBC__
#error "Allocations are counted over glibc only"
#endif

namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> calls{0}, bytes{0};

void* counted(void* block, size_t size) {
  if (counting.load(std::memory_order_relaxed)) {
    calls.fetch_add(1, std::memory_order_relaxed);
    bytes.fetch_add(static_cast<int64_t>(size), std::memory_order_relaxed);
  }
  return block;
}

}  // namespace

extern "C" {

void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* block, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) noexcept { return counted(__libc_malloc(size), size); }
void* calloc(size_t count, size_t size) noexcept { return counted(__libc_calloc(count, size), count * size); }
void* realloc(void* block, size_t size) noexcept { return counted(__libc_realloc(block, size), size); }
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
  counting = true;
}

CountedAllocations::~CountedAllocations() { counting = false; }

Allocations CountedAllocations::so_far() const { return {calls, bytes}; }

}  // namespace benchmarks
