// SPDX-License-Identifier: MIT
#include "sharpness/ranks.hpp"

#include <cmath>
#include <cstddef>
#include <limits>

namespace flatness {
namespace {

int sign(double value) { return (value > 0.0) - (value < 0.0); }

}  // namespace

double rank_correlation(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<size_t> known;
  for (size_t i = 0; i < a.size(); ++i)
    if (std::isfinite(a[i]) && std::isfinite(b[i])) known.push_back(i);
  double agreement = 0.0, in_a = 0.0, in_b = 0.0;
  for (size_t i = 0; i < known.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      const int of_a = sign(a[known[i]] - a[known[j]]), of_b = sign(b[known[i]] - b[known[j]]);
      agreement += of_a * of_b;
      in_a += of_a * of_a;
      in_b += of_b * of_b;
    }
  return in_a > 0.0 && in_b > 0.0 ? agreement / std::sqrt(in_a * in_b) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace flatness
