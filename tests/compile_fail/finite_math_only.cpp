// expect: add -fno-fast-math behind them
// flags: -ffinite-math-only
// SPDX-License-Identifier: MIT
#include <steppe/schedule.hpp>
