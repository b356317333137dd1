// Curves, marks and maps as one SVG picture that is legible in print.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "presentation/axis.hpp"

namespace presentation {

/// One curve, or marks alone. Values that are not finite (or, on a logarithmic axis, not over 0) leave a gap.
struct Series {
  std::string name;  ///< the same name looks the same in every panel of a figure; empty: not in the legend
  std::vector<double> x, y;
  std::vector<double> low, high;  ///< a band around the curve; empty for none
  enum class Style { Line, Marks, Bars } style = Style::Line;
};

struct Panel {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
};

/// Values over a plane, as colours with level lines; values[i][j] belongs to x[i] and y[j].
struct Map {
  std::string title;
  Axis x, y;
  std::string value_name;
  bool logarithmic = false;  ///< the colours
  std::vector<double> xs, ys;
  std::vector<std::vector<double>> values;
};

/// Panels and maps side by side, in rows of three, under one title and one legend.
class Figure {
 public:
  Figure(std::string title, std::string caption) : title_(std::move(title)), caption_(std::move(caption)) {}

  void add(Panel panel) { tiles_.push_back({std::move(panel), {}, false}); }
  void add(Map map) { tiles_.push_back({{}, std::move(map), true}); }

  std::string svg() const;

 private:
  struct Tile {
    Panel panel;
    Map map;
    bool is_map;
  };

  std::vector<std::string> names() const;

  std::string title_, caption_;
  std::vector<Tile> tiles_;
};

}  // namespace presentation
