// What code calls that is compiled with -fsanitize=thread; the program is not linked with the sanitizer.
// SPDX-License-Identifier: MIT
#include <cstddef>

#include "detector.hpp"

using steppe::races::access;
using steppe::races::Kind;

#define HOOK(name, bytes, kind) \
  void __tsan_##name(void* memory) { access(memory, bytes, kind, __builtin_return_address(0)); }
#define HOOKS(bytes)                             \
  HOOK(read##bytes, bytes, Kind::Read)           \
  HOOK(write##bytes, bytes, Kind::Write)         \
  HOOK(unaligned_read##bytes, bytes, Kind::Read) \
  HOOK(unaligned_write##bytes, bytes, Kind::Write)

#define ATOMIC_HOOKS(bits, Integer)                                                           \
  Integer __tsan_atomic##bits##_load(const volatile Integer* from, int) { return *from; }     \
  void __tsan_atomic##bits##_store(volatile Integer* to, Integer value, int) { *to = value; } \
  Integer __tsan_atomic##bits##_fetch_add(volatile Integer* to, Integer value, int) {         \
    const Integer before = *to;                                                               \
    *to = static_cast<Integer>(before + value);                                               \
    return before;                                                                            \
  }

extern "C" {

HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* memory, size_t bytes) { access(memory, bytes, Kind::Read, __builtin_return_address(0)); }
void __tsan_write_range(void* memory, size_t bytes) { access(memory, bytes, Kind::Write, __builtin_return_address(0)); }

void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// Only the tests themselves, in one thread, call these.
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
ATOMIC_HOOKS(8, char)
ATOMIC_HOOKS(32, int)
ATOMIC_HOOKS(64, long)

}  // extern "C"
