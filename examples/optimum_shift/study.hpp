// Every optimizer, seed and way of shifting, with progress; the page is written after each seed's run.
// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cifar/dataset.hpp"
#include "optimum_shift/trial.hpp"

namespace shifting {

struct Study {
  std::vector<cifar::RunSettings> runs;  ///< optimizers and seeds
  Settings settings;
  std::filesystem::path out;
};

/// What was carried out before an interruption or to the end: for each run all ways, the first one as trained.
struct Outcome {
  std::vector<Trial> trials;
  size_t runs = 0;  ///< completed
  bool finished = false;
};
Outcome carry_out(const Study& study, const cifar::Dataset& data);

/// Called with the current work and the completed share of a run's ways; throws to end everything.
using TellShare = std::function<void(const std::string& what, double share)>;

/// All ways of one run. Shifts after training all start from the same weights, and those during it from the same
/// initial ones.
std::vector<Trial> trials_of(const cifar::RunSettings& run, const cifar::Dataset& data, const Settings& settings,
                             bool with_planes, const TellShare& tell);

}  // namespace shifting
