// Which instructions the passes use on this machine.
// SPDX-License-Identifier: MIT
#pragma once

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <steppe/kernels/cpu/passes.hpp>
#include <steppe/kernels/cpu/simd/avx2.hpp>
#include <steppe/kernels/cpu/simd/avx512.hpp>
#include <steppe/kernels/cpu/simd/neon.hpp>
#include <steppe/kernels/cpu/simd/portable.hpp>
#include <steppe/kernels/cpu/simd/sse2.hpp>
#include <steppe/kernels/cpu/simd/target.hpp>
#include <steppe/version.hpp>

#define STEPPE_INSTRUCTION_SET portable
#include <steppe/kernels/cpu/passes.inl>
#undef STEPPE_INSTRUCTION_SET

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define STEPPE_INSTRUCTION_SET sse2
#include <steppe/kernels/cpu/passes.inl>
#undef STEPPE_INSTRUCTION_SET

STEPPE_TARGET_BEGIN(STEPPE_AVX2)
#define STEPPE_INSTRUCTION_SET avx2
#include <steppe/kernels/cpu/passes.inl>
#undef STEPPE_INSTRUCTION_SET
STEPPE_TARGET_END

STEPPE_TARGET_BEGIN(STEPPE_AVX512)
#define STEPPE_INSTRUCTION_SET avx512
#include <steppe/kernels/cpu/passes.inl>
#undef STEPPE_INSTRUCTION_SET
STEPPE_TARGET_END
#endif

#if defined(__AARCH64EL__) && defined(__ARM_NEON)
#define STEPPE_INSTRUCTION_SET neon
#include <steppe/kernels/cpu/passes.inl>
#undef STEPPE_INSTRUCTION_SET
#endif

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

enum class InstructionSet : int { Portable, Sse2, Avx2, Avx512, Neon };

inline const char* name_of(InstructionSet set) {
  static constexpr const char* names[] = {"portable", "sse2", "avx2", "avx512", "neon"};
  return names[static_cast<int>(set)];
}

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
namespace detail {

/// Compilers before clang 18 have no name for it.
inline bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace detail
#endif

/// The sets that this machine has, the best one last.
inline std::vector<InstructionSet> available_instruction_sets() {
  std::vector<InstructionSet> found = {InstructionSet::Portable};
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  found.push_back(InstructionSet::Sse2);
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("popcnt") && detail::has_f16c();
  if (avx2) found.push_back(InstructionSet::Avx2);
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back(InstructionSet::Avx512);
#endif
#if defined(__AARCH64EL__) && defined(__ARM_NEON)
  found.push_back(InstructionSet::Neon);
#endif
  return found;
}

namespace detail {

/// The set that the environment variable STEPPE_CPU names; otherwise the best.
inline InstructionSet first_instruction_set() {
  const std::vector<InstructionSet> found = available_instruction_sets();
  const char* wanted = std::getenv("STEPPE_CPU");
  if (wanted == nullptr || *wanted == '\0') return found.back();
  std::string names;
  for (const InstructionSet set : found) {
    if (wanted == std::string(name_of(set))) return set;
    names += names.empty() ? name_of(set) : ", " + std::string(name_of(set));
  }
  throw std::invalid_argument("steppe: the environment variable STEPPE_CPU is '" + std::string(wanted) +
                              "'; this machine has " + names);
}

inline std::atomic<InstructionSet>& current_instruction_set() {
  static std::atomic<InstructionSet> current{first_instruction_set()};
  return current;
}

}  // namespace detail

inline InstructionSet instruction_set() { return detail::current_instruction_set().load(std::memory_order_relaxed); }

/// For tests and benchmarks: from now on the passes use `set`, which the machine must have.
inline void use(InstructionSet set) { detail::current_instruction_set().store(set, std::memory_order_relaxed); }

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
/// A loop that writes as much as it reads is faster in 256 bits: on Zen 4 by a tenth.
template <class T>
const Passes<T>& best_of_avx512() {
  static const Passes<T> best = [] {
    Passes<T> all = avx512::passes<T>();
    if (sizeof(T) == sizeof(float)) all.ascend = avx2::passes<T>().ascend;
    return all;
  }();
  return best;
}
#endif

/// The passes for a storage format. On x86, double has vectors of 256 bits from AVX2 on, and 16-bit formats have
/// vectors from there on; elsewhere double is computed in plain C++.
template <class T>
const Passes<T>& passes() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  if constexpr (sizeof(T) > sizeof(float)) {
    const InstructionSet set = instruction_set();
    if (set == InstructionSet::Avx2 || set == InstructionSet::Avx512) return avx2::passes<T>();
  } else {
    switch (instruction_set()) {
      case InstructionSet::Sse2:
        if constexpr (sizeof(T) == sizeof(float)) return sse2::passes<T>();
        break;
      case InstructionSet::Avx2:
        return avx2::passes<T>();
      case InstructionSet::Avx512:
        return best_of_avx512<T>();
      case InstructionSet::Portable:
      case InstructionSet::Neon:
        break;
    }
  }
#elif defined(__AARCH64EL__) && defined(__ARM_NEON)
  if constexpr (sizeof(T) <= sizeof(float))
    if (instruction_set() == InstructionSet::Neon) return neon::passes<T>();
#endif
  return portable::passes<T>();
}

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
