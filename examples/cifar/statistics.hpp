// Mean, spread and interval over the seeds of a comparison.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "presentation/spread.hpp"
#include "records.hpp"

namespace cifar {

using presentation::half_interval;
using presentation::Spread;
using presentation::spread_of;

/// The optimizers of the results, in the order in which they appear first.
std::vector<std::string> optimizers_of(const std::vector<RunResult>& results);

/// `value` of every run of an optimizer, where it is known.
std::vector<double> values_of(const std::vector<RunResult>& results, const std::string& optimizer,
                              const std::function<double(const RunResult&)>& value);

/// The base optimizer of `optimizer` if it was run too, else empty.
std::string base_among(const std::vector<RunResult>& results, const std::string& optimizer);

/// `value` minus that of the base optimizer's run with the same seed, where both are known.
std::vector<double> differences_to_base(const std::vector<RunResult>& results, const std::string& optimizer,
                                        const std::function<double(const RunResult&)>& value);

/// At the end of a run; unknown for one that was stopped early.
double test_accuracy(const RunResult& run);
double training_seconds(const RunResult& run);
double gradients_per_step(const RunResult& run);

}  // namespace cifar
