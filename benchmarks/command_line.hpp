// The options that the programs here share.
// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>

namespace benchmarks {

struct Settings {
  bool quick = false;
  int threads = 0;  ///< 0: LibTorch's own choice
  int rounds = 21;
};

void add_options(CLI::App& app, Settings& settings);

/// Threads of LibTorch, the instruction set; prints the machine. False, with the reason on stderr: nothing may be
/// measured.
bool prepare(const Settings& settings);

}  // namespace benchmarks
