// SPDX-License-Identifier: MIT
#include "interval.hpp"

#include <algorithm>
#include <cstddef>
#include <random>

namespace benchmarks {

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

Interval interval_of(const std::vector<double>& values) {
  constexpr size_t kDraws = 4000;
  std::mt19937_64 random(1);
  std::uniform_int_distribution<size_t> pick(0, values.size() - 1);
  std::vector<double> medians(kDraws), drawn(values.size());
  for (double& median : medians) {
    for (double& value : drawn) value = values[pick(random)];
    median = median_of(drawn);
  }
  std::sort(medians.begin(), medians.end());
  return {median_of(values), medians[kDraws / 40], medians[kDraws - 1 - kDraws / 40]};
}

Interval ratio_of(const std::vector<double>& left, const std::vector<double>& right) {
  std::vector<double> ratios(left.size());
  std::transform(left.begin(), left.end(), right.begin(), ratios.begin(), [](double a, double b) { return a / b; });
  return interval_of(ratios);
}

}  // namespace benchmarks
