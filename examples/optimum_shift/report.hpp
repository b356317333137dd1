// The tables of steppe-optimum-shift, and what they show, in words.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "optimum_shift/trial.hpp"
#include "presentation/table.hpp"

namespace shifting {

/// One row per optimizer and way, mean and sample standard deviation over the seeds.
presentation::Table table(const std::vector<Trial>& trials);
/// One row per trial.
presentation::Table trial_table(const std::vector<Trial>& trials);
/// Everything, unrounded.
presentation::Table numbers_csv(const std::vector<Trial>& trials);

/// What each way changed against the same run as trained, over the seeds.
std::string conclusions(const std::vector<Trial>& trials);
/// How many shifts of each way of one run were kept.
std::string one_line(const std::vector<Trial>& trials);
/// The conditions of all trials.
std::string conditions(const cifar::RunSettings& run, const Settings& settings);

/// The optimizers of the trials, and their ways' labels, in order of appearance.
std::vector<std::string> optimizers_of(const std::vector<Trial>& trials);
std::vector<std::string> labels_of(const std::vector<Trial>& trials);

}  // namespace shifting
