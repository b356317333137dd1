// The command line of steppe-tensor-completion.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "presentation/program.hpp"
#include "training.hpp"

namespace completion {

struct Arguments {
  presentation::StudyOptions study;
  std::filesystem::path data;  ///< empty: the bundled tensor
  std::vector<std::string> methods = {"adam", "sam", "das", "hooi"};
  TrainingSettings training;  ///< of the published setting; ranks empty until the tensor is known
  double masked = 0.7;
  int64_t splits = 3;
  int64_t sweeps = 2000;
  int64_t attempt_iterations = 10000;  ///< of the part on held-out entries; 0 leaves it out

  bool bundled() const { return data.empty(); }
  /// The settings of the published figures.
  bool as_published() const;
};

/// The exit code if the program is to end here (help, a mistake).
std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments);

}  // namespace completion
