// Runs every method on every split, then the attempts at the held-out entries.
// SPDX-License-Identifier: MIT
#pragma once

#include "arguments.hpp"
#include "results.hpp"

namespace completion {

/// Called when there are new results to write.
using Written = std::function<void(const Results&)>;

/// Ends early, with the results so far, when the program is interrupted.
Results carry_out(const Arguments& arguments, const at::Tensor& values, const Written& written);

}  // namespace completion
