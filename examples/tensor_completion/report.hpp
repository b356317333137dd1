// The results as tables.
// SPDX-License-Identifier: MIT
#pragma once

#include "arguments.hpp"
#include "presentation/table.hpp"
#include "results.hpp"

namespace completion {

/// R2 on the observed entries by method and split, with the published row.
presentation::Table observed_table(const Results& results, const Arguments& arguments);
/// R2 on the held-out entries, and how the error is spread over the samples.
presentation::Table held_out_table(const Results& results);
/// Norm deviation at the end, and the cost of a run.
presentation::Table deviation_table(const Results& results);
/// The attempts at the held-out entries, means over the splits.
presentation::Table attempts_table(const Results& results);

/// Every moment of every run; every attempt.
presentation::Table moments_csv(const Results& results);
presentation::Table attempts_csv(const Results& results);
presentation::Table samples_csv(const Results& results);

}  // namespace completion
