// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/kernels/cpu/memory.hpp>
#include <steppe/kernels/cpu/order_statistic.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <vector>

namespace steppe::kernels::cpu {
namespace {

template <class T>
void expect_every_rank(std::vector<Number<T>> values, const std::vector<int64_t>& ranks) {
  std::vector<Number<T>> sorted = values;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const auto n = static_cast<int64_t>(values.size());
  Memory memory;
  for (const int64_t rank : ranks) {
    if (rank >= n) continue;
    Number<T>* const scratch = memory.room_for<Number<T>>(n + kBlockRoom);
    std::copy(values.begin(), values.end(), scratch);
    EXPECT_EQ(order_statistic(passes<T>(), scratch, n, rank), sorted[static_cast<size_t>(rank)]) << "rank " << rank;
  }
}

TEST(OrderStatistic, IsThatOfTheSortedNumbers) {
  const InstructionSet before = instruction_set();
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  for (const InstructionSet set : available_instruction_sets()) {
    use(set);
    for (const int n : {1, 2, 16, 17, 48, 49, 300, 4096}) {
      std::vector<float> smooth, ties, wild;
      for (int i = 0; i < n; ++i) {
        smooth.push_back(std::fabs(normal(random)));
        ties.push_back(static_cast<float>(random() % 3));
        wild.push_back(std::ldexp(1.0f + normal(random) * 1e-3f, static_cast<int>(random() % 250) - 140));
      }
      std::vector<int64_t> ranks = {0, 1, 2, n / 20, n / 4, n / 2, n - 2, n - 1};
      ranks.erase(std::remove_if(ranks.begin(), ranks.end(), [](int64_t rank) { return rank < 0; }), ranks.end());
      for (const auto& values : {smooth, ties, wild, std::vector<float>(static_cast<size_t>(n), 0.0f)}) {
        expect_every_rank<float>(values, ranks);
        expect_every_rank<double>(std::vector<double>(values.begin(), values.end()), ranks);
      }
    }
  }
  use(before);
}

TEST(Ordinals, HaveTheOrderOfTheNumbers) {
  EXPECT_EQ(ordinal_of(-1.0f), -1);
  EXPECT_EQ(ordinal_of(-0.0f), 0);
  EXPECT_EQ(ordinal_of(0.0f), 0);
  EXPECT_EQ(number_at<double>(ordinal_of(2.5)), 2.5);
  EXPECT_LT(ordinal_of(1.0f), ordinal_of(std::nextafter(1.0f, 2.0f)));
}

}  // namespace
}  // namespace steppe::kernels::cpu
