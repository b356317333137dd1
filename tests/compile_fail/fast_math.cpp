// expect: add -fno-fast-math behind them
// flags: -ffast-math
// SPDX-License-Identifier: MIT
#include <steppe/schedule.hpp>
