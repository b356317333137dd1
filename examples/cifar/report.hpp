// What a comparison ends with: the table, what it shows, results.csv.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "records.hpp"

namespace cifar {

/// One row per optimizer; with several seeds mean and sample standard deviation.
std::string table(const std::vector<RunResult>& results);

/// What the differences to the base optimizer are worth, in sentences.
std::string conclusions(const std::vector<RunResult>& results);

/// One line per run and epoch; the measurement stands in the last epoch's.
std::string csv(const std::vector<RunResult>& results);

}  // namespace cifar
