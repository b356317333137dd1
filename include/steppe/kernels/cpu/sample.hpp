// A sample of a layer, and the window around an order statistic that it suggests.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <steppe/kernels/cpu/order_statistic.hpp>
#include <steppe/kernels/cpu/passes.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Groups of 32 neighbours, spread over the layer.
template <class N>
class Sample {
 public:
  static constexpr int64_t kMost = 4096;
  /// The length of the buffer that the caller provides.
  static constexpr int64_t kRoom = 3 * (kMost + kBlockRoom);

  Sample(const Passes<N>& passes, N* room)
      : passes_(passes), values_(room), keys_(room + kMost + kBlockRoom), scratch_(keys_ + kMost + kBlockRoom) {}

  /// Draws components, less the mean of their row where there are rows.
  template <class T>
  void draw(const T* from, int64_t n, const N* row_means, int64_t row) {
    population_ = n;
    count_ = (std::min)(std::clamp(n / 64, kLeast, kMost), n) / kGroup * kGroup;
    const int64_t groups = count_ / kGroup, stride = n / groups;
    uint32_t random = 0x9e3779b9u;
    for (int64_t g = 0; g < groups; ++g) {
      // A fixed stride may coincide with the rows' period.
      random = random * 1664525u + 1013904223u;
      const int64_t at = g * stride + (((stride - kGroup) * static_cast<int64_t>(random >> 8)) >> 24);
      N* const group = values_ + g * kGroup;
      for (int64_t i = 0; i < kGroup; ++i) group[i] = widen(from[at + i]);
      if (row_means != nullptr) centralize<T>(group, at, row_means, row);
    }
    double sum = 0.0, squares = 0.0;
    passes_.sums(values_, count_, sum, squares);
    mean_ = static_cast<N>(sum / static_cast<double>(count_));
  }

  N mean() const { return mean_; }

  /// A window that contains, within `sigmas` standard deviations of the sample's counts, the distance from the centre
  /// that has `rank` in the descending order of all distances.
  Window<N> window(N centre, int64_t rank, double sigmas) {
    window_ = Window<N>();
    if (!std::isfinite(mean_)) {  // nothing will move
      window_.low = window_.high = std::numeric_limits<N>::infinity();
      return window_;
    }
    window_.centre = centre;
    int64_t none = 0;
    passes_.distances_between(values_, count_, centre, N{-1}, std::numeric_limits<N>::infinity(), keys_, none);
    const double share = static_cast<double>(rank) / static_cast<double>(population_);
    const double expected = exact::product(share, static_cast<double>(count_));
    bound(count_, expected, sigmas);
    find_plateau(expected, sigmas);
    around_zero();
    return window_;
  }

  /// The share of the layer that is in the window, apart from the plateau.
  double share_inside() const { return inside_ / static_cast<double>(count_); }

 private:
  static constexpr int64_t kLeast = 1024, kGroup = 32;

  template <class T>
  static void centralize(N* group, int64_t at, const N* row_means, int64_t row) {
    int64_t r = at / row, next = (r + 1) * row;
    for (int64_t i = 0; i < kGroup; ++i) {
      if (at + i == next) {
        ++r;
        next += row;
      }
      group[i] = rounded_to<T>(group[i] - row_means[r]);
    }
  }

  void bound(int64_t n, double expected, double sigmas) {
    const double share = std::clamp(expected / static_cast<double>(count_), 1.0 / static_cast<double>(count_), 1.0);
    const double deviation = std::sqrt(static_cast<double>(count_) * share * (1.0 - share));
    const double margin = exact::product(sigmas, deviation) + 2.0;
    const double top = expected - margin, bottom = expected + margin;
    std::copy(keys_, keys_ + n, scratch_);
    window_.low = N{-1};
    if (bottom < static_cast<double>(n - 1)) window_.low = order_statistic(passes_, scratch_, n, std::llround(bottom));
    // Of those above the lower edge only: the scratch is used up.
    const int64_t above = passes_.between(keys_, n, window_.low, std::numeric_limits<N>::infinity(), scratch_);
    inside_ = (std::min)(bottom, 2.0 * margin);
    window_.high = std::numeric_limits<N>::infinity();
    if (top >= 0.0 && above > 0) window_.high = order_statistic(passes_, scratch_, above, std::llround(top));
  }

  /// Many equal values reach an edge of the window: one such value is excluded from it and counted instead.
  void find_plateau(double expected, double sigmas) {
    const N edges[] = {window_.low, window_.high};  // nvcc fails on the list in the loop
    for (const N level : edges) {
      if (level < N{0} || passes_.count_above(keys_, count_, number_at<N>(ordinal_of(level) - 1)) -
                                  passes_.count_above(keys_, count_, level) <
                              count_ / 16)
        continue;
      N value = 0;
      if (equal_to(level, value) < count_ / 16) continue;
      window_.has_plateau = true;
      window_.plateau = value;
      const auto above = static_cast<double>(passes_.count_above(keys_, count_, level));
      return bound(drop_plateau(), (std::min)(expected, above), sigmas);
    }
  }

  /// Where the centre is nearly zero, a slightly wider window around zero saves the subtraction.
  void around_zero() {
    const N shift = std::fabs(window_.centre);
    if (window_.has_plateau || window_.low < N{0} || !(shift <= window_.low / 50)) return;
    window_.centre = 0;
    window_.low -= shift;
    window_.high += shift;
  }

  /// How many values are at this distance from the centre, on the side of the first of them.
  int64_t equal_to(N level, N& value) const {
    int64_t equal = 0;
    for (int64_t i = 0; i < count_; ++i) {
      if (!exact::are_equal(keys_[i], level)) continue;
      if (equal == 0) value = values_[i];
      equal += exact::are_equal(values_[i], value);
    }
    return equal;
  }

  /// Keeps the keys of the other values only; returns how many.
  int64_t drop_plateau() {
    int64_t n = 0;
    for (int64_t i = 0; i < count_; ++i)
      if (!exact::are_equal(values_[i], window_.plateau)) keys_[n++] = keys_[i];
    return n;
  }

  const Passes<N>& passes_;
  N *values_, *keys_, *scratch_;
  int64_t population_ = 0, count_ = 0;
  double inside_ = 0.0;
  N mean_ = 0;
  Window<N> window_;
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
