// Carries out runs one after the other, with progress, checkpoints and files of results.
// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <vector>

#include "dataset.hpp"
#include "records.hpp"

namespace cifar {

struct Comparison {
  std::vector<RunSettings> runs;
  std::filesystem::path out;                       ///< folder of index.html, curves.svg and curves.csv
  std::vector<std::filesystem::path> checkpoints;  ///< one for each of `runs`; empty paths for none
  bool resume = false;                             ///< from the checkpoints that exist
};

/// Makes the folders and checks that they can be written to; checks the checkpoints that are to be resumed.
void prepare(const Comparison& comparison, const Dataset& data);

/// What was carried out before an interruption or to the end.
struct Outcome {
  std::vector<RunResult> results;
  bool finished = false;
};
Outcome carry_out(const Comparison& comparison, const Dataset& data);

}  // namespace cifar
