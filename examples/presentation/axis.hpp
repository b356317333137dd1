// An axis of a picture, and the places of its values.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace presentation {

struct Axis {
  std::string name;  ///< with its unit: "time (s)"
  bool logarithmic = false;
  std::vector<std::string> categories = {};  ///< names at 0, 1, 2 ... in place of numbers
  bool whole = false;                        ///< ticks at whole numbers only
};

/// Maps values to places between `at` and `end`, with ticks. A tight scale ends where its values do, others at a tick.
class Scale {
 public:
  Scale(const Axis& axis, const std::vector<double>& values, bool tight, double at, double end);

  bool shows(double value) const { return std::isfinite(value) && (!logarithmic_ || value > 0.0); }
  double operator()(double value) const { return place(inner(value)); }
  double place(double inside) const { return at_ + (inside - from_) / (to_ - from_) * (end_ - at_); }
  /// Their places and labels.
  const std::vector<std::pair<double, std::string>>& ticks() const { return ticks_; }

 private:
  double inner(double value) const { return logarithmic_ ? std::log10(value) : value; }
  void set(double from, double to) {
    from_ = from;
    to_ = to;
  }

  void steps(double low, double high, bool tight);
  void decades(double low, double high, bool tight);

  bool logarithmic_, whole_;
  double at_, end_, from_ = 0.0, to_ = 1.0;
  std::vector<std::pair<double, std::string>> ticks_;
};

}  // namespace presentation
