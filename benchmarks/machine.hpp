// The machine and the build that were measured.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>

namespace benchmarks {

/// Several lines: processor, load, LibTorch, threads, instruction set, compiler and flags.
std::string description_of_machine();

/// Empty, or why figures of this build would mislead.
std::string why_not_to_measure();

}  // namespace benchmarks
