// The curves of a comparison as one picture.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "presentation/figure.hpp"
#include "records.hpp"

namespace cifar {

/// Test accuracy and training accuracy over the epochs (mean over the seeds in their range), the test accuracy at the
/// end of every seed, and over the seconds of training (mean over the seeds).
presentation::Figure chart(const std::vector<RunResult>& results);

}  // namespace cifar
