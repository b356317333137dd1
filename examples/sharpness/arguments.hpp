// The command line of steppe-sharpness.
// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "presentation/program.hpp"
#include "sharpness/measurement.hpp"

namespace flatness {

struct Arguments {
  std::vector<std::filesystem::path> checkpoints;  ///< files and folders of them; empty only with --quick
  std::filesystem::path data;                      ///< empty for the bundled sample
  std::string device = "cpu";
  presentation::StudyOptions study;
  Settings settings;
};

/// Fills `arguments`, or prints help or an error and returns the exit code.
std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments);

}  // namespace flatness
