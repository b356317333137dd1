// The results of the study of kernel regression: tables, words, pictures.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "kernel_study.hpp"
#include "presentation/page.hpp"

namespace statistics {

/// The setting, and whether the theory's condition holds in it.
std::string conditions(const KernelStudy& study);
/// Best stopping times over the noise levels.
presentation::Table table(const KernelStudy& study);
/// Where SAM is ahead and where it is not; a line per statement, all of it from the numbers.
std::string conclusions(const KernelStudy& study);
/// How well the closed form, the iteration, the trained weights and the simulation agree.
std::string agreement(const KernelStudy& study);

void add_to(presentation::Page& page, const KernelStudy& study);

}  // namespace statistics
