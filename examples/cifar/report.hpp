// The results of a comparison: the table, what it shows, every epoch in numbers.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "presentation/table.hpp"
#include "records.hpp"

namespace cifar {

/// One row per optimizer; with several seeds mean and sample standard deviation.
presentation::Table table(const std::vector<RunResult>& results);

/// What the differences to the base optimizer are worth, in sentences.
std::string conclusions(const std::vector<RunResult>& results);

/// One line per run and epoch; the measurement is in the last epoch's.
presentation::Table csv(const std::vector<RunResult>& results);

}  // namespace cifar
