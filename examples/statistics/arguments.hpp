// The command line of steppe-statistics.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "presentation/program.hpp"

namespace statistics {

struct KernelSettings {
  int64_t n = 100, iterations = 10000, draws = 200, designs = 20;
  double bandwidth = 5.0;
  double rho = 1.0;  ///< as a multiple of 1/d_1
  double eta = 0.5;  ///< as a share of 1/(d_1 (1 + rho d_1))
  std::vector<double> sigmas = {0.0, 0.1, 0.25, 0.5, 1.0};
};

struct NetworkStudySettings {
  std::string data;  ///< empty: the bundled images
  std::vector<int64_t> classes = {0, 1};
  std::vector<double> noise = {0.0, 0.1, 0.2, 0.4};  ///< shares of flipped labels
  int64_t hidden = 64, iterations = 400, seeds = 5, draws = 4;
  double learning_rate = 0.01;
  double rho = 0.1;            ///< of the normalised SAM
  double gradient_rho = 0.03;  ///< of the un-normalised one
};

struct Arguments {
  presentation::StudyOptions study;
  std::string only;  ///< "kernel", "network", or empty for both
  KernelSettings kernel;
  NetworkStudySettings network;
};

/// Returns the exit code if the program is to end here.
std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments);

}  // namespace statistics
