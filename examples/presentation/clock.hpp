// Seconds on a clock that only moves forward.
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>

namespace presentation {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace presentation
