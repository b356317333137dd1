// The sums that one thread makes of the floats it reads: in double, or where a processor has few units for that, in
// pairs of floats.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/block.hpp>
#include <steppe/kernels/cuda/work.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

class DoubleSum {
 public:
  static constexpr bool kInPairs = false;

  STEPPE_DEVICE void add(float x) { value_ += exact::as_double(x); }
  STEPPE_DEVICE void add_square(float x) { value_ += exact::as_double(x) * exact::as_double(x); }
  STEPPE_DEVICE double value() const { return value_; }

 private:
  double value_ = 0.0;
};

/// High and low part: what rounding takes from the high one is added to the low one (Knuth's two-sum), and so is what a
/// product loses (by a fused multiply-add). About 40 bits for the components that a thread reads of a chunk, in 11
/// operations of float instead of two of double, of which many processors make 64 times fewer.
class FloatPairSum {
 public:
  static constexpr bool kInPairs = true;

  STEPPE_DEVICE void add(float x) { low_ = exact::sum(low_, add_high(x)); }
  STEPPE_DEVICE void add_square(float x) {
    const float square = exact::product(x, x);
    squared_ |= exact::bits_of(x);
    const float lost = exact::product_less(x, x, square);
    low_ = exact::sum(low_, exact::sum(add_high(square), lost));
  }
  STEPPE_DEVICE double value() const { return exact::as_double(high_) + exact::as_double(low_); }

  /// Whether nothing has overflowed, and no square underflowed, so that it would be seen in double.
  STEPPE_DEVICE bool is_in_range() const {
    constexpr float kLeast = 8.3e-25f, kLargest = 1.3e36f;  // 2^-80, 2^120
    const bool is_large_enough = (squared_ << 1) == 0 || exact::is_greater(high_, kLeast);
    return is_large_enough && exact::is_greater(kLargest, exact::magnitude(high_));
  }

 private:
  /// Returns what rounding takes.
  STEPPE_DEVICE float add_high(float x) {
    const float total = exact::sum(high_, x), added = exact::difference(total, high_);
    const float lost =
        exact::sum(exact::difference(high_, exact::difference(total, added)), exact::difference(x, added));
    high_ = total;
    return lost;
  }

  float high_ = 0.0f, low_ = 0.0f;
  uint32_t squared_ = 0;  ///< all bits of what was squared
};

/// What a thread adds up, as in Part.
template <class Sum>
struct ThreadSums {
  Sum sum, raw, measure, length;
};

/// That of the architecture for which a kernel is compiled; a device of 8.6 or 8.9 that runs code for 8.0 has no pairs.
/// Those without pairs have half as many units for double as for float.
struct DeviceSum {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ != 600 && __CUDA_ARCH__ != 700 && __CUDA_ARCH__ != 800 && \
    __CUDA_ARCH__ != 900 && __CUDA_ARCH__ != 1000
  static constexpr bool kInPairs = true;
#else
  static constexpr bool kInPairs = false;
#endif
};

/// Calls body with ThreadSums and adds them to `mine`; where a pair is out of its range, with sums in double again.
template <class Sum, class Body>
STEPPE_DEVICE void add_up(Part& mine, Body&& body) {
  const auto keep = [&mine](const auto& sums) {
    mine.sum += sums.sum.value();
    mine.raw += sums.raw.value();
    mine.measure += sums.measure.value();
    mine.length += sums.length.value();
  };
  if constexpr (Sum::kInPairs) {
    ThreadSums<FloatPairSum> sums;
    body(sums);
    if (sums.sum.is_in_range() && sums.raw.is_in_range() && sums.measure.is_in_range() && sums.length.is_in_range())
      return keep(sums);
  }
  ThreadSums<DoubleSum> sums;
  body(sums);
  keep(sums);
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
