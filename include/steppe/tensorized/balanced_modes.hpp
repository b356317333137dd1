// A number of features or channels, split into modes.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

namespace detail {

/// The non-decreasing factors from `from` on, `count` of them, of the smallest sum; `best` stays where none is smaller.
inline void search_modes(int64_t size, int64_t count, int64_t from, int64_t sum, std::vector<int64_t>& chosen,
                         std::vector<int64_t>& best, int64_t& best_sum) {
  if (count == 1) {
    if (sum + size >= best_sum) return;
    best_sum = sum + size;
    best = chosen;
    best.push_back(size);
    return;
  }
  for (int64_t d = from, power = d; power <= size; ++d) {
    power = 1;
    for (int64_t k = 0; k < count && power <= size; ++k) power *= d;
    if (power > size || size % d != 0) continue;
    chosen.push_back(d);
    search_modes(size / d, count - 1, d, sum + d, chosen, best, best_sum);
    chosen.pop_back();
  }
}

}  // namespace detail

/// Splits a size into `count` factors of the smallest sum, ascending; factors of one are left out: 512 in 2 is {16,
/// 32}, 10 is {2, 5}, 7 is {7}.
inline std::vector<int64_t> balanced_modes(int64_t size, int64_t count) {
  TORCH_CHECK(count >= 1, "steppe: a size is split into at least one mode, got ", count);
  std::vector<int64_t> chosen, best, modes;
  int64_t best_sum = size + count + 1;
  detail::search_modes(size, count, 1, 0, chosen, best, best_sum);
  for (const int64_t d : best)
    if (d > 1) modes.push_back(d);
  return modes.empty() ? std::vector<int64_t>{1} : modes;
}

/// The modes of `size` features or channels: those given, or `count` balanced ones. Errors: a size below 1, given modes
/// below 1, more than six of them, or of another product.
inline std::vector<int64_t> modes_of(int64_t size, const std::vector<int64_t>& given, int64_t count, const char* what) {
  TORCH_CHECK(size >= 1, "steppe: a tensorized layer needs at least one of its ", what, ", got ", size);
  if (given.empty()) return balanced_modes(size, count);
  int64_t product = 1;
  for (const int64_t d : given) {
    TORCH_CHECK(d >= 1 && d <= size, "steppe: mode ", d, " of ", size, " ", what, " must be from 1 to ", size);
    product *= d;
    TORCH_CHECK(product <= size, "steppe: the modes ", c10::IntArrayRef(given), " multiply to more than ", size, " ",
                what);
  }
  TORCH_CHECK(product == size, "steppe: the modes ", c10::IntArrayRef(given), " multiply to ", product, ", not to ",
              size, " ", what);
  TORCH_CHECK(given.size() <= 6, "steppe: ", what, " are split into 1 to 6 modes, got ", given.size());
  return given;
}

}  // namespace tensorized
STEPPE_NAMESPACE_END
