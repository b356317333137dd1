// SPDX-License-Identifier: MIT
#include "presentation/spread.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace presentation {
namespace {

TEST(Spread, IsMeanSampleDeviationAndRange) {
  const Spread spread = spread_of({1.0, 2.0, 6.0});
  EXPECT_EQ(spread.count, 3U);
  EXPECT_DOUBLE_EQ(spread.mean, 3.0);
  EXPECT_DOUBLE_EQ(spread.deviation, std::sqrt(7.0));
  EXPECT_DOUBLE_EQ(spread.lowest, 1.0);
  EXPECT_DOUBLE_EQ(spread.highest, 6.0);
  EXPECT_NEAR(half_interval(spread), 4.303 * std::sqrt(7.0 / 3.0), 0.01);
}

TEST(Spread, OneValueHasNoDeviationAndNoneHasNoMean) {
  EXPECT_DOUBLE_EQ(spread_of({4.0}).mean, 4.0);
  EXPECT_TRUE(std::isnan(spread_of({4.0}).deviation));
  EXPECT_TRUE(std::isnan(half_interval(spread_of({4.0}))));
  EXPECT_TRUE(std::isnan(spread_of({}).mean));
}

TEST(Spread, TheIntervalHasStudentsQuantileForAnyNumberOfValues) {
  const auto quantile = [](size_t count) {
    Spread spread;
    spread.count = count;
    spread.deviation = std::sqrt(static_cast<double>(count));
    return half_interval(spread);
  };
  EXPECT_NEAR(quantile(2), 12.706, 1e-3);
  EXPECT_NEAR(quantile(5), 2.776, 0.01);
  EXPECT_NEAR(quantile(10), 2.262, 2e-3);
  EXPECT_NEAR(quantile(20), 2.093, 1e-3);
  EXPECT_NEAR(quantile(101), 1.984, 1e-3);
}

TEST(Spread, AVerdictIsWhereTheIntervalLies) {
  const auto said = [](const std::vector<double>& values) {
    return std::string(verdict(spread_of(values), "more", "less"));
  };
  EXPECT_EQ(said({1.0, 1.1, 1.2}), "more");
  EXPECT_EQ(said({-1.0, -1.1, -1.2}), "less");
  EXPECT_EQ(said({-1.0, 1.1, 2.0}), "no difference shown");
  EXPECT_EQ(said({1.0}), "no difference shown");
}

TEST(Spread, ATextHasADeviationWhereThereIsOne) {
  EXPECT_EQ(mean_and_deviation({1.0, 2.0, 6.0}, "%.1f"), "3.0 ± 2.6");
  EXPECT_EQ(mean_and_deviation({1.0, 2.0, 6.0}, "%+.1f"), "+3.0 ± 2.6") << "a deviation has no sign";
  EXPECT_EQ(mean_and_deviation({4.0}, "%.2f"), "4.00");
  EXPECT_EQ(mean_and_deviation({}, "%.2f"), "-");
}

}  // namespace
}  // namespace presentation
