// A map of values over a plane as SVG: colours, level lines, and the colours' key.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "presentation/figure.hpp"
#include "presentation/tile.hpp"

namespace presentation {

std::string drawn(const Map& map, const Place& place);

}  // namespace presentation
