// The base optimizer's step by itself: LibTorch's class beside steppe::Fused.
// SPDX-License-Identifier: MIT
#pragma once

#include "command_line.hpp"

namespace benchmarks {

/// Three lists of parameters, float32 and bfloat16. Errors: numbers that are not those of the class.
void compare_base_steps(const Settings& settings);

}  // namespace benchmarks
