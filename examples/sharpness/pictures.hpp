// The pictures of steppe-sharpness, each with its numbers.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "presentation/page.hpp"
#include "sharpness/measurement.hpp"

namespace flatness {

using presentation::Picture;

/// Spectral density, and the largest eigenvalues by their rank.
Picture spectrum_picture(const std::vector<Measured>& results);
/// SAM sharpness over the radius, and the loss along one direction.
Picture rise_picture(const std::vector<Measured>& results, const Settings& settings);
/// The loss over two directions: one map for each run that has a plane.
Picture plane_picture(const std::vector<Measured>& results);

}  // namespace flatness
