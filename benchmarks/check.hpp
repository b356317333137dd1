// Checks that a contestant computes what the library defines.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "contestant.hpp"
#include "problem.hpp"

namespace benchmarks {

/// w + e of a method by the reference path.
std::vector<at::Tensor> reference_weights(Problem& problem, Method method);

/// One ascent and restore: w + e must be `expected`, and w afterwards the same bit for bit.
///
/// Returns the seconds it took. Throws std::runtime_error, naming contestant, tensor and values, if not.
double check(const Entry& entry, Problem& problem, const std::vector<at::Tensor>& expected);

}  // namespace benchmarks
