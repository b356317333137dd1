// expect: add -fno-fast-math after them
// flags: -ffast-math
// SPDX-License-Identifier: MIT
#include <steppe/schedule.hpp>
