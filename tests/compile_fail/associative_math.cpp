// expect: add -fno-fast-math behind them
// flags: -funsafe-math-optimizations
// SPDX-License-Identifier: MIT
#include <steppe/schedule.hpp>
