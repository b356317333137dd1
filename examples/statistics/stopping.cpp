// SPDX-License-Identifier: MIT
#include "stopping.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace statistics {

Stop best_stop(const std::vector<double>& risk) {
  if (risk.empty()) throw std::runtime_error("a curve without values has no best stopping time");
  const auto lowest = std::min_element(risk.begin(), risk.end());
  return {static_cast<size_t>(lowest - risk.begin()), *lowest};
}

std::vector<Stretch> stretches(const std::vector<double>& first, const std::vector<double>& second, double tolerance) {
  std::vector<Stretch> all;
  for (size_t k = 1; k < std::min(first.size(), second.size()); ++k) {
    const double equal = tolerance * std::max(std::abs(first[k]), std::abs(second[k]));
    const Ahead ahead = std::abs(first[k] - second[k]) <= equal ? Ahead::Neither
                        : first[k] < second[k]                  ? Ahead::First
                                                                : Ahead::Second;
    if (!all.empty() && all.back().ahead == ahead)
      all.back().to = k;
    else
      all.push_back({k, k, ahead});
  }
  return all;
}

std::string stretches_of(const std::vector<Stretch>& all, Ahead ahead) {
  std::string words;
  for (const Stretch& stretch : all) {
    if (stretch.ahead != ahead) continue;
    if (!words.empty()) words += ", ";
    words += std::to_string(stretch.from);
    if (stretch.to > stretch.from) words += " to " + std::to_string(stretch.to);
  }
  return words.empty() ? "none" : words;
}

}  // namespace statistics
