// The pictures of steppe-optimum-shift, each with its numbers.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "optimum_shift/trial.hpp"
#include "presentation/page.hpp"

namespace shifting {

using presentation::Picture;

/// The loss along one direction, as trained and after small batches that were not judged: a panel for each optimizer.
Picture slice_picture(const std::vector<Trial>& trials);
/// The loss over two directions: a map for each trial that has a plane.
Picture plane_picture(const std::vector<Trial>& trials);
/// What each shift during training did to the loss, kept or not: a panel for each optimizer.
Picture event_picture(const std::vector<Trial>& trials);

}  // namespace shifting
