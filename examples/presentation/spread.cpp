// SPDX-License-Identifier: MIT
#include "presentation/spread.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "presentation/formatted.hpp"

namespace presentation {

Spread spread_of(const std::vector<double>& values) {
  Spread spread;
  spread.count = values.size();
  if (values.empty()) return spread;
  double sum = 0.0, squares = 0.0;
  for (const double value : values) sum += value;
  spread.mean = sum / static_cast<double>(values.size());
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  if (values.size() > 1) spread.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  spread.lowest = *std::min_element(values.begin(), values.end());
  spread.highest = *std::max_element(values.begin(), values.end());
  return spread;
}

double half_interval(const Spread& spread) {
  if (spread.count < 2) return kUnknown;
  // 97.5 % quantiles of 1, 2 and 3 degrees of freedom, and their expansion in 1/degrees, right to 0.3 % from 4 on.
  constexpr double t_quantiles[] = {12.706, 4.303, 3.182};
  const std::size_t degrees = spread.count - 1;
  const double v = 1.0 / static_cast<double>(degrees), z = 1.959964, z2 = z * z;
  const double t = degrees <= std::size(t_quantiles)
                       ? t_quantiles[degrees - 1]
                       : z * (1.0 + v * (z2 + 1.0) / 4.0 + v * v * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0 +
                              v * v * v * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0);
  return t * spread.deviation / std::sqrt(static_cast<double>(spread.count));
}

const char* verdict(const Spread& spread, const char* above, const char* below) {
  const double half = half_interval(spread);
  return spread.mean - half > 0.0 ? above : spread.mean + half < 0.0 ? below : "no difference shown";
}

std::string mean_and_deviation(const std::vector<double>& values, const char* format) {
  const Spread spread = spread_of(values);
  if (!std::isfinite(spread.mean)) return "-";
  std::string text = formatted(format, spread.mean);
  if (spread.count < 2) return text;
  const std::string deviation = formatted(format, spread.deviation);
  text += " ± " + deviation.substr(deviation.find_first_not_of('+'));
  return text;
}

}  // namespace presentation
