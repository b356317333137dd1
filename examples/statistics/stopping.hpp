// When to stop, and where one curve is below another.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace statistics {

/// The first k at which a curve is lowest. Errors: an empty curve.
struct Stop {
  size_t k = 0;
  double risk = 0.0;
};
Stop best_stop(const std::vector<double>& risk);

enum class Ahead { First, Second, Neither };

/// A stretch of iterations from..to on which the same curve is lower.
struct Stretch {
  size_t from, to;
  Ahead ahead;
};

/// From k = 1 on. Values that differ by a share of at most `tolerance` are equal.
std::vector<Stretch> stretches(const std::vector<double>& first, const std::vector<double>& second,
                               double tolerance = 1e-9);

/// "1 to 157, 300 to 410", "4", or "none": where `ahead` is.
std::string stretches_of(const std::vector<Stretch>& all, Ahead ahead);

}  // namespace statistics
