// What must not be asked of the compiler.
// SPDX-License-Identifier: MIT
#pragma once

// Bounds are infinities, a norm that is not finite stops a step, and sums have an order. All of that is taken away by
// -ffast-math, in silence.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ != 0)
#error \
    "steppe: -ffast-math, -Ofast, -funsafe-math-optimizations and -ffinite-math-only take away the order of sums, infinities and NaN, by which bad gradients are told: add -fno-fast-math behind them for the files that include steppe"
#endif
