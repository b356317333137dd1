// expect: add -fno-fast-math after them
// flags: -ffinite-math-only
// SPDX-License-Identifier: MIT
#include <steppe/schedule.hpp>
