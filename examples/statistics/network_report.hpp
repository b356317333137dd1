// The results of the study of the network: tables, words, picture.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "network_study.hpp"
#include "presentation/page.hpp"

namespace statistics {

std::string conditions(const NetworkStudy& study);
/// Test error at the best stopping time and at the end, over noise levels and methods; mean ± deviation over the seeds.
presentation::Table error_table(const NetworkStudy& study);
/// Bias^2, variance and squared error each where the squared error is lowest, and the sharpness at the end.
presentation::Table bias_table(const NetworkStudy& study);
/// Where SAM is ahead of GD and where it is not, with the interval over the seeds.
std::string conclusions(const NetworkStudy& study);

/// Nothing if no seed was completed.
void add_to(presentation::Page& page, const NetworkStudy& study);

}  // namespace statistics
