// The base optimizer's step alone: LibTorch's class against steppe::Fused.
// SPDX-License-Identifier: MIT
#pragma once

#include "command_line.hpp"

namespace benchmarks {

/// Three lists of parameters, float32 and bfloat16. Errors: results that differ from the class's.
void compare_base_steps(const Settings& settings);

}  // namespace benchmarks
