// A sample of a layer, and the window around an order statistic that it suggests.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <steppe/kernels/cpu/order_statistic.hpp>
#include <steppe/kernels/cpu/passes.hpp>

namespace steppe::kernels::cpu {

/// Groups of 16 neighbours, spread over the layer. Two buffers of kMost + 16 numbers are lent to it.
template <class T>
class Sample {
 public:
  using N = Number<T>;
  static constexpr int64_t kLeast = 1024, kMost = 4096;

  Sample(const Passes<T>& passes, N* values, N* keys) : passes_(passes), values_(values), keys_(keys) {}

  /// Components less the mean of their row, where there are rows.
  void draw(const T* from, int64_t n, const N* row_means, int64_t row) {
    population_ = n;
    count_ = std::min(std::clamp(n / 64, kLeast, kMost), n) / kGroup * kGroup;
    const int64_t groups = count_ / kGroup, stride = n / groups;
    uint64_t random = 0x9e3779b97f4a7c15u;
    double sum = 0.0;
    for (int64_t g = 0; g < groups; ++g) {
      // A fixed stride may fall in step with the rows.
      random = random * 6364136223846793005u + 1442695040888963407u;
      const int64_t free = stride - kGroup;
      const int64_t at = g * stride + (free > 0 ? static_cast<int64_t>(random >> 33) % free : 0);
      for (int64_t i = 0; i < kGroup; ++i) {
        N x = widen(from[at + i]);
        if (row_means != nullptr) x = rounded_to<T>(x - row_means[(at + i) / row]);
        values_[g * kGroup + i] = x;
        sum += static_cast<double>(x);
      }
    }
    mean_ = static_cast<N>(sum / static_cast<double>(count_));
  }

  N mean() const { return mean_; }

  /// Holds, within `sigmas` standard deviations of the sample's counts, the distance from the centre that has `rank` in
  /// the descending order of all distances.
  Window<N> window(N centre, int64_t rank, double sigmas) {
    window_ = Window<N>();
    window_.centre = centre;
    const double expected = static_cast<double>(rank) / static_cast<double>(population_) * static_cast<double>(count_);
    bound(count_, expected, sigmas);
    // Many equal values in the window: one of them is taken out of it and counted.
    if (inside() > 2.0 * expected_inside_ + static_cast<double>(count_) / 16.0) find_plateau(expected, sigmas);
    return window_;
  }

  /// The share of the layer that will be listed.
  double share_inside() const { return std::max(inside(), expected_inside_) / static_cast<double>(count_); }

 private:
  static constexpr int64_t kGroup = 16;

  double inside() const { return static_cast<double>(inside_); }

  /// The distances of all values but the plateau's; returns how many.
  int64_t fill_keys() {
    int64_t n = 0;
    for (int64_t i = 0; i < count_; ++i)
      if (!window_.has_plateau || values_[i] != window_.plateau) keys_[n++] = std::fabs(values_[i] - window_.centre);
    return n;
  }

  N key_at(double rank) {
    const int64_t n = fill_keys();
    return order_statistic(passes_, keys_, n, std::clamp<int64_t>(std::llround(rank), 0, n - 1));
  }

  void bound(int64_t n, double expected, double sigmas) {
    const double share = std::clamp(expected / static_cast<double>(count_), 1.0 / static_cast<double>(count_), 1.0);
    const double margin = sigmas * std::sqrt(static_cast<double>(count_) * share * (1.0 - share)) + 2.0;
    expected_inside_ = 2.0 * margin;
    const double top = expected - margin, bottom = expected + margin;
    window_.high = top < 0.0 ? std::numeric_limits<N>::infinity() : key_at(top);
    window_.low = bottom >= static_cast<double>(n - 1) ? N{-1} : key_at(bottom);
    const int64_t filled = fill_keys();
    inside_ = passes_.count_above(keys_, filled, window_.low) - passes_.count_above(keys_, filled, window_.high);
  }

  void find_plateau(double expected, double sigmas) {
    const N level = key_at(expected);
    int64_t above = 0, equal = 0;
    N value = 0;
    for (int64_t i = 0; i < count_; ++i) {
      const N key = std::fabs(values_[i] - window_.centre);
      if (key > level) ++above;
      if (key == level && equal == 0) value = values_[i];
      if (key == level && values_[i] == value) ++equal;
    }
    if (equal < count_ / 16) return;
    window_.has_plateau = true;
    window_.plateau = value;
    bound(count_ - equal, std::min(expected, static_cast<double>(above)), sigmas);
  }

  const Passes<T>& passes_;
  N *values_, *keys_;
  int64_t population_ = 0, count_ = 0, inside_ = 0;
  double expected_inside_ = 0.0;
  N mean_ = 0;
  Window<N> window_;
};

}  // namespace steppe::kernels::cpu
