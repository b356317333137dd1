// Mean, spread and interval of repeated runs.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace presentation {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

struct Spread {
  std::size_t count = 0;
  double mean = kUnknown, deviation = kUnknown;  ///< sample standard deviation, unknown below two values
  double lowest = kUnknown, highest = kUnknown;
};

Spread spread_of(const std::vector<double>& values);

/// Half the width of the 95 % interval of the mean (Student's t); unknown below two values.
double half_interval(const Spread& spread);

/// `above` or `below` if the 95 % interval of the mean is above or below 0, else "no difference shown", as below two
/// values.
const char* verdict(const Spread& spread, const char* above, const char* below);

/// "34.5 ± 1.2", both numbers by the printf `format`, a deviation without its plus sign; "34.5" for one value; "-" for
/// none.
std::string mean_and_deviation(const std::vector<double>& values, const char* format);

}  // namespace presentation
