// A median with its bootstrap interval.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

namespace benchmarks {

/// 95 %: the middle of the medians of values drawn anew from the same values.
struct Interval {
  double median, low, high;
};

double median_of(std::vector<double> values);

Interval interval_of(const std::vector<double>& values);

/// Of left over right, pair by pair.
Interval ratio_of(const std::vector<double>& left, const std::vector<double>& right);

}  // namespace benchmarks
