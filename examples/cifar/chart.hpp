// The curves of a comparison as one SVG picture.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "records.hpp"

namespace cifar {

/// Test accuracy and training accuracy over the epochs (mean over the seeds in their range), and the test accuracy at
/// the end of every seed.
std::string chart(const std::vector<RunResult>& results);

}  // namespace cifar
