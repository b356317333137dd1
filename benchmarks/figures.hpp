// The table of a competition, and one line per figure for programs.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "competition.hpp"
#include "interval.hpp"

namespace benchmarks {

/// left over right.
struct Figure {
  std::string name, left, right, suffix;
  double target;  ///< 0: none
  bool at_least;  ///< else at most
};

struct MeasuredFigure {
  Figure figure;
  Interval ratio;
};

/// Of a large list.
std::vector<Figure> figures_of_methods(const std::string& suffix);
/// SAM against the faster of its two peers in ATen operations.
Figure figure_of_small(const Results& results);

/// Those whose two sides took part.
std::vector<MeasuredFigure> measure(const std::vector<Figure>& figures, const Results& results);

/// Milliseconds and bandwidth per contestant, then the figures beside their targets.
void print_table(const Results& results, const std::vector<MeasuredFigure>& figures);
/// ratio NAME MEDIAN LOW HIGH
void print_line(const std::string& name, const Interval& ratio);

}  // namespace benchmarks
