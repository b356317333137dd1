// The command line.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "records.hpp"

namespace cifar {

/// What fits the bundled sample, or a full data set, in the way it is usually trained; optimizer and seed are left
/// open.
RunSettings fitting_settings(bool sample);

struct Arguments {
  std::filesystem::path data;
  bool sample = true;  ///< the images that come with the program
  bool compare = false;
  std::vector<std::string> optimizers;
  std::vector<uint64_t> seeds;
  std::string device = "cpu";
  int threads = 0;  ///< LibTorch's own choice if 0
  std::filesystem::path out, checkpoint;
  bool resume = false;

  RunSettings settings;  ///< of every run, except what its optimizer and seed decide
  /// "gradients": each run makes as many gradient evaluations as the base does in settings.epochs.
  std::string budget = "steps";
  std::optional<double> weight_decay;
  std::map<std::string, double> learning_rates, rhos;  ///< by optimizer; "": all others

  RunSettings run(const std::string& optimizer, uint64_t seed) const;
  /// Empty if the run cannot have one.
  std::filesystem::path checkpoint_of(const RunSettings& run) const;
};

/// Fills `arguments`, or prints help or an error and returns the exit code.
std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments);

}  // namespace cifar
