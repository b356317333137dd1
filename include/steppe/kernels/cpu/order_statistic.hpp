// The value of a given rank among non-negative numbers, found by counting.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>

#include <steppe/kernels/cpu/passes.hpp>

namespace steppe::kernels::cpu {

/// Non-negative numbers and their bits have the same order; -1 stands before all of them.
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

/// The element at `rank` (from 0) of the descending order of `x`, which holds no NaN, nothing negative, and room for 16
/// more. Destroys `x`.
///
/// Halves the bracket low < v <= high by counting, by value and by bits in turn, and drops what lies outside.
template <class T>
Number<T> order_statistic(const Passes<T>& passes, Number<T>* x, int64_t n, int64_t rank) {
  using N = Number<T>;
  constexpr int64_t kFew = 48;
  constexpr int kCountsBetweenDrops = 4;
  Ordinal<N> low = -1, high = ordinal_of(std::numeric_limits<N>::infinity());
  int64_t above_high = 0;
  for (int turn = 1; n > kFew && high - low > 1; ++turn) {
    Ordinal<N> middle = low + (high - low) / 2;
    if (turn % 2 == 0 && number_at<N>(high) <= std::numeric_limits<N>::max()) {
      const N by_value = (std::max(number_at<N>(low), N{0}) + number_at<N>(high)) / 2;
      middle = std::clamp(ordinal_of(by_value), static_cast<Ordinal<N>>(low + 1), static_cast<Ordinal<N>>(high - 1));
    }
    const int64_t above = passes.count_above(x, n, number_at<N>(middle));
    if (above > rank) {
      low = middle;
    } else {
      high = middle;
      above_high = above;
    }
    if (turn % kCountsBetweenDrops == 0) {
      n = passes.between(x, n, number_at<N>(low), number_at<N>(high), x);
      rank -= above_high;
      above_high = 0;
    }
  }
  if (high - low <= 1) return number_at<N>(high);
  const int64_t at = std::clamp<int64_t>(rank, 0, n - 1);
  std::nth_element(x, x + at, x + n, std::greater<N>());
  return x[at];
}

}  // namespace steppe::kernels::cpu
