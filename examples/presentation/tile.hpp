// One tile of a picture: its place, its axes and its text, as SVG.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>

#include "presentation/axis.hpp"

namespace presentation {

constexpr double kTileWidth = 320, kTileHeight = 300, kHead = 110, kGapX = 82, kGapY = 104, kLeft = 74, kFoot = 60;
constexpr size_t kColumns = 3;

std::string label(double x, double y, const char* attributes, const std::string& words);
std::string line(double x1, double y1, double x2, double y2, const char* colour);

/// The place of a tile in the picture.
struct Place {
  double left, top;
  double right() const { return left + kTileWidth; }
  double bottom() const { return top + kTileHeight; }
};

/// Tiles are in rows of kColumns.
Place place_of(size_t tile);

/// Axes with ticks and names, and the title; the grid's lines run along the values.
std::string frame(const Place& place, const Scale& x, const Scale& y, const std::string& title, const Axis& x_axis,
                  const Axis& y_axis, bool grid);

}  // namespace presentation
