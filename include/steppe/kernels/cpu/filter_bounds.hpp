// The components that a filter keeps, as two bounds: cheaper to test than rounded distances.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include <steppe/kernels/formats.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// A filter keeps the numbers below `low` and those above `high`.
template <class N>
struct FilterBounds {
  N low = 0, high = 0;

  bool keep(N x) const { return x < low || x > high; }
};

/// The places of a storage format's numbers in their order, from -NaN on; both zeros have the middle one.
template <class T>
class Places {
 public:
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;

  static uint64_t of(Number<T> value) {
    T stored;
    narrow(value, stored);
    Bits bits;
    std::memcpy(&bits, &stored, sizeof(bits));
    return (bits & kSign) != 0 ? uint64_t{kSign} - (bits ^ kSign) : uint64_t{kSign} + bits;
  }

  static Number<T> number_at(uint64_t place) {
    const Bits bits = static_cast<Bits>(place < kSign ? (kSign - place) | kSign : place - kSign);
    T stored;
    std::memcpy(&stored, &bits, sizeof(stored));
    return widen(stored);
  }

 private:
  static constexpr auto kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(T) - 1));
};

/// The largest number x of the format T for which x - mean, rounded to T, is not above the threshold. It grows with x,
/// so that the place is found by doubling steps from an estimate and then by halving; the mean itself is within.
template <class T>
Number<T> largest_within(Number<T> mean, Number<T> threshold) {
  using N = Number<T>;
  const auto is_within = [&](uint64_t place) {
    return !(rounded_to<T>(Places<T>::number_at(place) - mean) > threshold);
  };
  const uint64_t first = Places<T>::of(mean), last = Places<T>::of(std::numeric_limits<N>::infinity());
  uint64_t within = first, beyond = last, step = 1;
  const uint64_t estimate = Places<T>::of(mean + threshold);
  if (is_within(estimate)) {
    if (estimate == last) return Places<T>::number_at(last);
    within = estimate;
    for (; last - within > step && is_within(within + step); step *= 2) within += step;
    if (last - within > step) beyond = within + step;
  } else {
    beyond = estimate;
    for (; beyond - first > step && !is_within(beyond - step); step *= 2) beyond -= step;
    if (beyond - first > step) within = beyond - step;
  }
  while (beyond - within > 1) {
    const uint64_t middle = within + (beyond - within) / 2;
    (is_within(middle) ? within : beyond) = middle;
  }
  return Places<T>::number_at(within);
}

/// Kept are the numbers of the format T for which |x - mean|, rounded to T, is above the threshold, which is not
/// negative and not NaN. The mean is a finite number of the format.
template <class T>
FilterBounds<Number<T>> filter_bounds(Number<T> mean, Number<T> threshold) {
  // Rounding is symmetric.
  return {-largest_within<T>(-mean, threshold), largest_within<T>(mean, threshold)};
}

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
