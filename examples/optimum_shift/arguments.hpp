// The command line of steppe-optimum-shift.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cifar/arguments.hpp"
#include "optimum_shift/trial.hpp"
#include "presentation/program.hpp"

namespace shifting {

struct Arguments {
  std::filesystem::path data;  ///< empty for the bundled sample
  std::vector<std::string> optimizers = {"sgd", "sam"};
  int seeds = 3;
  cifar::Arguments training;  ///< settings of every run, except its optimizer and seed
  presentation::StudyOptions study;
  Settings settings;
};

/// Fills `arguments`, or prints help or an error and returns the exit code.
std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments);

}  // namespace shifting
