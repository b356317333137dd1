// The network over levels of label noise, seeds and draws.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "arguments.hpp"
#include "network.hpp"

namespace statistics {

struct NetworkStudy {
  NetworkStudySettings settings;
  std::string data_name;
  int64_t train_images = 0, test_images = 0;
  std::vector<int64_t> steps;   ///< the recorded ones
  std::vector<Method> methods;  ///< GD first
  /// [level of noise][seed][method]; a seed is included once all of its draws of all methods are done.
  std::vector<std::vector<std::vector<NetworkCurves>>> curves;
  bool finished = false;
};

/// Every method starts from the same weights and is trained on the same draws of flipped labels.
/// Ends early, with the seeds that are complete, when the program is interrupted.
NetworkStudy carry_out(const NetworkStudySettings& settings, const cifar::Dataset& data, uint64_t seed);

/// `value` of a method at a level of noise, for each seed.
std::vector<double> over_seeds(const NetworkStudy& study, size_t level, size_t method,
                               const std::function<double(const NetworkCurves&)>& value);
/// The same minus that of GD from the same seed.
std::vector<double> differences_to_gd(const NetworkStudy& study, size_t level, size_t method,
                                      const std::function<double(const NetworkCurves&)>& value);

}  // namespace statistics
