// SPDX-License-Identifier: MIT
#include "presentation/axis.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "presentation/formatted.hpp"

namespace presentation {
namespace {

/// A step of 1, 2 or 5 times a power of ten that cuts `range` into at most six parts.
double tick_step(double range) {
  const double power = std::pow(10.0, std::floor(std::log10(range / 6.0)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (range / (power * factor) <= 6.0) return power * factor;
  return 10.0 * power;
}

std::string number_text(double value, double step) {
  return formatted("%g", std::round(value / step * 1e3) * step / 1e3 + 0.0);
}

}  // namespace

Scale::Scale(const Axis& axis, const std::vector<double>& values, bool tight, double at, double end)
    : logarithmic_(axis.logarithmic), whole_(axis.whole), at_(at), end_(end) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double value : values)
    if (shows(value)) {
      low = std::min(low, inner(value));
      high = std::max(high, inner(value));
    }
  if (!axis.categories.empty()) {
    set(-0.5, static_cast<double>(axis.categories.size()) - 0.5);
    for (size_t i = 0; i < axis.categories.size(); ++i) ticks_.emplace_back(static_cast<double>(i), axis.categories[i]);
    return;
  }
  if (low > high) low = 0.0, high = 1.0;
  if (logarithmic_)
    decades(low, high, tight);
  else
    steps(low, high, tight);
}

void Scale::steps(double low, double high, bool tight) {
  const double least = std::max(std::abs(low), std::abs(high)) * 1e-9;
  if (high - low <= least) {
    const double room = high != 0.0 ? std::abs(high) * 0.1 : 1.0;
    low -= room;
    high += room;
  }
  const double step = whole_ ? std::max(1.0, tick_step(high - low)) : tick_step(high - low);
  if (tight)
    set(low, high);
  else
    set(std::floor(low / step - 0.1) * step, (std::floor(high / step + 0.1) + 1.0) * step);
  for (double tick = std::ceil(from_ / step - 1e-6); tick * step <= to_ + step * 1e-6; tick += 1.0)
    ticks_.emplace_back(tick * step, number_text(tick * step, step));
}

void Scale::decades(double low, double high, bool tight) {
  if (tight && high - low > 0.3)
    set(low, high);
  else
    set(std::floor(low + 1e-9), std::max(std::ceil(high - 1e-9), std::floor(low + 1e-9) + 1.0));
  const double step = std::max(1.0, std::ceil((to_ - from_) / 6.0));
  const bool few = to_ - from_ < 2.5;
  for (double power = std::floor(from_); power <= to_ + 1e-9; power += step)
    for (const double factor : few ? std::vector<double>{1.0, 2.0, 5.0} : std::vector<double>{1.0}) {
      const double inside = power + std::log10(factor);
      if (inside >= from_ - 1e-9 && inside <= to_ + 1e-9)
        ticks_.emplace_back(inside, std::abs(power) < 4.0 ? formatted("%g", factor * std::pow(10.0, power))
                                                          : formatted("%ge%.0f", factor, power));
    }
}

}  // namespace presentation
