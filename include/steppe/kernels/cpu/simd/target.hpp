// Compiling a region for more instructions than the rest of the file.
// SPDX-License-Identifier: MIT
#pragma once

// What a processor must have; instruction_sets.hpp checks it for each.
#define STEPPE_AVX2 "avx2,fma,f16c,bmi,popcnt"
#define STEPPE_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,popcnt"

// -O2 does not inline a function of fifty instructions into a loop, and passes its vectors through memory.
#if defined(__GNUC__) || defined(__clang__)
#define STEPPE_ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define STEPPE_ALWAYS_INLINE inline
#endif

#define STEPPE_PRAGMA(words) _Pragma(#words)

// Everything that a region uses must be included before it: what is defined inside is compiled for its processors only.
#if defined(__clang__)
#define STEPPE_TARGET_BEGIN(features) \
  STEPPE_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define STEPPE_TARGET_END STEPPE_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define STEPPE_TARGET_BEGIN(features) STEPPE_PRAGMA(GCC push_options) STEPPE_PRAGMA(GCC target(features))
#define STEPPE_TARGET_END STEPPE_PRAGMA(GCC pop_options)
#else
#define STEPPE_TARGET_BEGIN(features)
#define STEPPE_TARGET_END
#endif
