// The tables of steppe-sharpness, and what they show, in words.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "presentation/table.hpp"
#include "sharpness/measurement.hpp"

namespace flatness {

/// Runs that differ in their seed only, under one name: the optimizer's, with other settings that distinguish groups.
struct Group {
  std::string name;
  std::vector<const Measured*> runs;
};
/// In the order in which they appear first; the results must outlive them.
std::vector<Group> groups_of(const std::vector<Measured>& results);
/// "sam, seed 1": the group's name and the seed.
std::string label_of(const Group& group, const Measured& run);

/// One row per group; with several seeds mean and sample standard deviation.
presentation::Table comparison_table(const std::vector<Measured>& results, const Settings& settings);
/// One row per run.
presentation::Table runs_table(const std::vector<Measured>& results, const Settings& settings);
presentation::Table eigenvalue_table(const std::vector<Measured>& results);
/// Rank correlation of every measure with the test error over all runs; no rows below four runs.
presentation::Table rank_table(const std::vector<Measured>& results, const Settings& settings);
/// All single numbers, unrounded.
presentation::Table numbers_csv(const std::vector<Measured>& results, const Settings& settings);

/// How the sharpness of each optimizer compares with that of the first plain one (of the first, if none is), seed by
/// seed.
std::string conclusions(const std::vector<Measured>& results, const Settings& settings);
/// The conditions of the measurements, and how products with the Hessian were taken.
std::string conditions(const std::vector<Measured>& results, const Settings& settings);

}  // namespace flatness
