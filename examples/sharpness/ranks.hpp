// The correlation of two orders.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

namespace flatness {

/// Kendall's tau-b of two lists of equal length: 1 for the same order, -1 for the opposite one, 0 for no relation.
/// Pairs with a value that is not finite are left out. Unknown (NaN) below two pairs, or if all values of a list are
/// equal.
double rank_correlation(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace flatness
