// expect: add -fno-fast-math after them
// flags: -funsafe-math-optimizations
// SPDX-License-Identifier: MIT
#include <steppe/schedule.hpp>
