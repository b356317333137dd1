// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/balanced_modes.hpp>

#include <algorithm>
#include <vector>

#include "random_tensors.hpp"

namespace steppe::tensorized {
namespace {

using Modes = std::vector<int64_t>;

TEST(BalancedModes, AreTheFactorsOfTheSmallestSum) {
  EXPECT_EQ(balanced_modes(784, 2), (Modes{28, 28}));
  EXPECT_EQ(balanced_modes(512, 2), (Modes{16, 32}));
  EXPECT_EQ(balanced_modes(512, 3), (Modes{8, 8, 8}));
  EXPECT_EQ(balanced_modes(10, 2), (Modes{2, 5}));
  EXPECT_EQ(balanced_modes(360, 4), (Modes{3, 4, 5, 6}));
  EXPECT_EQ(balanced_modes(64, 1), (Modes{64}));
  for (int64_t size = 1; size <= 60; ++size) {
    int64_t smallest = size + 1;
    for (int64_t d = 1; d <= size; ++d)
      if (size % d == 0) smallest = std::min(smallest, d + size / d);
    const Modes found = balanced_modes(size, 2);
    int64_t sum = 0, product = 1;
    for (const int64_t d : found) {
      sum += d;
      product *= d;
    }
    EXPECT_EQ(product, size);
    EXPECT_EQ(sum + (found.size() == 1 ? 1 : 0), smallest) << size;
  }
}

TEST(BalancedModes, LeaveOutModesOfOne) {
  EXPECT_EQ(balanced_modes(7, 2), (Modes{7}));
  EXPECT_EQ(balanced_modes(6, 4), (Modes{2, 3}));
  EXPECT_EQ(balanced_modes(1, 3), (Modes{1}));
}

TEST(BalancedModes, GivenOnesMustMultiplyToTheSize) {
  EXPECT_EQ(modes_of(12, {2, 6}, 0, "input features"), (Modes{2, 6}));
  EXPECT_EQ(modes_of(12, {}, 2, "input features"), (Modes{3, 4}));
  expect_error(
      [] {
        modes_of(12, {2, 5}, 0, "input features");
      },
      "the modes [2, 5] multiply to 10, not to 12 input features");
  expect_error([] { modes_of(12, {6, 6}, 0, "channels"); }, "the modes [6, 6] multiply to more than 12 channels");
  expect_error([] { modes_of(12, {-3, -4}, 0, "channels"); }, "mode -3 of 12 channels must be from 1 to 12");
  expect_error([] { modes_of(128, {2, 2, 2, 2, 2, 2, 2}, 0, "channels"); }, "1 to 6 modes, got 7");
  expect_error([] { modes_of(0, {}, 2, "channels"); }, "at least one of its channels, got 0");
}

}  // namespace
}  // namespace steppe::tensorized
