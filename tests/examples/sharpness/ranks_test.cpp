// SPDX-License-Identifier: MIT
#include "sharpness/ranks.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace flatness {
namespace {

TEST(SharpnessRanks, AreOneForTheSameOrderAndMinusOneForTheOpposite) {
  EXPECT_DOUBLE_EQ(rank_correlation({1, 2, 3, 4}, {0.1, 0.2, 30, 40}), 1.0);
  EXPECT_DOUBLE_EQ(rank_correlation({1, 2, 3, 4}, {4, 3, 2, 1}), -1.0);
  // Of six pairs, five agree.
  EXPECT_NEAR(rank_correlation({1, 2, 3, 4}, {1, 2, 4, 3}), 4.0 / 6.0, 1e-12);
}

TEST(SharpnessRanks, TiesCountForNeitherSide) {
  // One pair is tied in the first list: (5 - 0) / sqrt(5 * 6).
  EXPECT_NEAR(rank_correlation({1, 2, 2, 3}, {1, 2, 3, 4}), 5.0 / std::sqrt(30.0), 1e-12);
}

TEST(SharpnessRanks, AreUnknownWhereNothingCanBeOrdered) {
  EXPECT_TRUE(std::isnan(rank_correlation({1}, {1})));
  EXPECT_TRUE(std::isnan(rank_correlation({1, 1, 1}, {1, 2, 3})));
  EXPECT_DOUBLE_EQ(rank_correlation({1, 2, std::nan(""), 4}, {1, 2, 3, 4}), 1.0);
}

}  // namespace
}  // namespace flatness
