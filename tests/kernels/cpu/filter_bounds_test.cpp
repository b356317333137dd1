// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/kernels/cpu/filter_bounds.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace steppe::kernels::cpu {
namespace {

/// A finite number of the format, of any exponent.
template <class T>
Number<T> any_finite(std::mt19937_64& random) {
  for (;;) {
    const uint64_t bits = random();
    T stored;
    std::memcpy(&stored, &bits, sizeof(stored));
    if (std::isfinite(widen(stored))) return widen(stored);
  }
}

template <class N>
struct MeanAndThreshold {
  N mean, threshold;
};

/// Of every size, and such that mean - threshold cancels; after all pairs of the extreme ones.
template <class T>
std::vector<MeanAndThreshold<Number<T>>> filters(int count, uint64_t seed) {
  using N = Number<T>;
  constexpr N kInfinity = std::numeric_limits<N>::infinity();
  std::mt19937_64 random(seed);
  std::vector<MeanAndThreshold<N>> all;
  const uint64_t infinity = Places<T>::of(kInfinity);
  const N smallest = Places<T>::number_at(Places<T>::of(N{0}) + 1), largest = Places<T>::number_at(infinity - 1);
  for (const N mean : {N{0}, -N{0}, smallest, -smallest, largest, -largest})
    for (const N threshold : {N{0}, smallest, largest, kInfinity}) all.push_back({mean, threshold});
  for (int i = 0; i < count; ++i) {
    const N mean = i % 8 == 0 ? N{0} : any_finite<T>(random);
    N threshold = std::fabs(any_finite<T>(random));
    if (i % 3 == 0) threshold = std::fabs(rounded_to<T>(mean * static_cast<N>(1.0 + 0.01 * (i % 5))));
    if (i % 16 == 1) threshold = 0;
    if (i % 16 == 3) threshold = kInfinity;
    if (i % 16 == 5) threshold = smallest;
    all.push_back({mean, rounded_to<T>(threshold)});
  }
  return all;
}

template <class T>
bool is_kept(Number<T> x, const MeanAndThreshold<Number<T>>& filter) {
  return std::fabs(rounded_to<T>(x - filter.mean)) > filter.threshold;
}

template <class T>
void expect_bounds_for_every_pattern() {
  for (const auto& filter : filters<T>(96, 1)) {
    const FilterBounds<float> bounds = filter_bounds<T>(filter.mean, filter.threshold);
    for (int i = 0; i < 65536; ++i) {
      const float x = widen(T{static_cast<uint16_t>(i)});
      ASSERT_EQ(bounds.keep(x), is_kept<T>(x, filter)) << x << " - " << filter.mean << ", " << filter.threshold;
    }
  }
}

TEST(FilterBounds, KeepTheSameAsDistancesForEveryPatternOf16Bits) {
  expect_bounds_for_every_pattern<BFloat16>();
  expect_bounds_for_every_pattern<Half>();
}

template <class N>
void expect_bounds_at_the_edges() {
  constexpr N kInfinity = std::numeric_limits<N>::infinity();
  std::mt19937_64 random(2);
  for (const auto& filter : filters<N>(4000, 3)) {
    const FilterBounds<N> bounds = filter_bounds<N>(filter.mean, filter.threshold);
    std::vector<N> places = {N{0},
                             filter.mean,
                             any_finite<N>(random),
                             any_finite<N>(random),
                             kInfinity,
                             -kInfinity,
                             std::numeric_limits<N>::quiet_NaN()};
    for (const N edge : {bounds.low, bounds.high})
      for (const N side : {edge, std::nextafter(edge, kInfinity), std::nextafter(edge, -kInfinity)})
        places.push_back(side);
    for (const N x : places)
      ASSERT_EQ(bounds.keep(x), is_kept<N>(x, filter)) << x << " - " << filter.mean << ", " << filter.threshold;
  }
}

TEST(FilterBounds, KeepTheSameAsDistancesNextToEachBound) {
  expect_bounds_at_the_edges<float>();
  expect_bounds_at_the_edges<double>();
}

}  // namespace
}  // namespace steppe::kernels::cpu
