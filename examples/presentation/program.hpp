// What the programs have in common beside their command lines' parser, which takes seconds to compile.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

namespace presentation {

/// What every study takes: --quick, --seed, --threads, --out.
struct StudyOptions {
  bool quick = false;
  uint64_t seed = 0;
  int threads = 0;  ///< LibTorch's own choice if 0
  std::filesystem::path out;
};

/// Runs a program, and turns what it throws into one line on stderr and exit code 1.
int carried_out(const char* program, const std::function<int()>& run);

/// The exit code of a program that was interrupted.
constexpr int kInterrupted = 130;

}  // namespace presentation
