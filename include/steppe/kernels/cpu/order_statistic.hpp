// The value of a given rank among non-negative numbers, found by counting.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>

#include <steppe/kernels/cpu/passes.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Non-negative numbers and their bits have the same order; -1 comes before all of them.
template <class N>
using Ordinal = std::conditional_t<sizeof(N) == 4, int32_t, int64_t>;

template <class N>
Ordinal<N> ordinal_of(N value) {
  if (value < N{0}) return -1;
  value += N{0};  // -0
  Ordinal<N> bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

template <class N>
N number_at(Ordinal<N> ordinal) {
  if (ordinal < 0) return N{-1};
  N value;
  std::memcpy(&value, &ordinal, sizeof(value));
  return value;
}

/// Two of the n numbers `some`, which it reorders: low < v <= high most likely holds for the number v at this share of
/// the descending order of all numbers that they were drawn from.
template <class N>
void bracket_of(N* some, int64_t n, double share, N& low, N& high) {
  const double at = exact::product(share, static_cast<double>(n));
  const double margin = exact::product(2.5, std::sqrt(at * (1.0 - share))) + 1.0;
  const auto top = std::max<int64_t>(static_cast<int64_t>(at - margin), 0);
  const auto bottom = std::min<int64_t>(static_cast<int64_t>(at + margin), n - 1);
  std::nth_element(some, some + top, some + n, std::greater<N>());
  std::nth_element(some + top, some + bottom, some + n, std::greater<N>());
  high = some[top];
  low = number_at<N>(ordinal_of(some[bottom]) - 1);
}

/// The element at `rank` (from 0) of the descending order of `x`, which has no NaN, no negative number, and room for 16
/// more. Destroys `x`.
///
/// A few of the numbers, sorted, suggest a bracket low < v <= high; counting confirms or corrects it; what is outside
/// is dropped. Where that does not halve them, the range of their bits is halved.
template <class N>
class OrderStatistic {
 public:
  OrderStatistic(const Passes<N>& passes, N* x, int64_t n, int64_t rank) : passes_(passes), x_(x), n_(n), rank_(rank) {}

  N find() {
    while (n_ > kFew && high_ - low_ > 1) {
      const int64_t before = n_;
      narrow_by_guess();
      if (n_ > before / 2 && high_ - low_ > 1) narrow(low_ + (high_ - low_) / 2);
    }
    if (high_ - low_ <= 1) return number_at<N>(high_);
    std::nth_element(x_, x_ + rank_, x_ + n_, std::greater<N>());
    return x_[rank_];
  }

 private:
  static constexpr int64_t kFew = 128;

  int64_t above(Ordinal<N> ordinal) const { return passes_.count_above(x_, n_, number_at<N>(ordinal)); }

  void drop_outside(int64_t above_high) {
    n_ = passes_.between(x_, n_, number_at<N>(low_), number_at<N>(high_), x_);
    rank_ -= above_high;
  }

  void narrow(Ordinal<N> middle) {
    const int64_t above_middle = above(middle);
    (above_middle > rank_ ? low_ : high_) = middle;
    drop_outside(above_middle > rank_ ? 0 : above_middle);
  }

  void narrow_by_guess() {
    N few[kFew];
    for (int64_t i = 0; i < kFew; ++i) few[i] = x_[i * n_ / kFew];
    N lowest, highest;
    bracket_of(few, kFew, static_cast<double>(rank_) / static_cast<double>(n_), lowest, highest);
    const Ordinal<N> low = (std::max)(ordinal_of(lowest), low_), high = (std::min)(ordinal_of(highest), high_);
    const int64_t above_high = above(high);
    if (above_high > rank_) {
      low_ = high;
      return drop_outside(0);
    }
    const int64_t above_low = above(low);
    if (above_low <= rank_) {
      high_ = low;
      return drop_outside(above_low);
    }
    low_ = low;
    high_ = high;
    drop_outside(above_high);
  }

  const Passes<N>& passes_;
  N* x_;
  int64_t n_, rank_;
  Ordinal<N> low_ = -1, high_ = ordinal_of(std::numeric_limits<N>::infinity());
};

template <class N>
N order_statistic(const Passes<N>& passes, N* x, int64_t n, int64_t rank) {
  return OrderStatistic<N>(passes, x, n, std::clamp<int64_t>(rank, 0, n - 1)).find();
}

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
