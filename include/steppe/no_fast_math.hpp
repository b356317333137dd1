// Compiler flags that the library does not support.
// SPDX-License-Identifier: MIT
#pragma once

// Bounds are infinite, a norm that is not finite stops an ascent, and sums have an order. -ffast-math breaks all of
// that silently.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ != 0)
#error \
    "steppe: -ffast-math, -Ofast, -funsafe-math-optimizations and -ffinite-math-only do not keep the order of sums, infinities and NaN, which steppe needs to detect bad gradients: add -fno-fast-math after them for the files that include steppe"
#endif
