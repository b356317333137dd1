// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/schedule.hpp>

#include <limits>

namespace steppe::schedule {
namespace {

TEST(Schedule, LinearMovesEvenlyAndThenStays) {
  const Schedule s = linear(1.0, 3.0, 4);
  EXPECT_DOUBLE_EQ(s(0), 1.0);
  EXPECT_DOUBLE_EQ(s(1), 1.5);
  EXPECT_DOUBLE_EQ(s(4), 3.0);
  EXPECT_DOUBLE_EQ(s(100), 3.0);
}

TEST(Schedule, CosineStartsAndEndsFlat) {
  const Schedule s = cosine(0.05, 0.2, 10);
  EXPECT_DOUBLE_EQ(s(0), 0.05);
  EXPECT_NEAR(s(5), 0.125, 1e-15);
  EXPECT_DOUBLE_EQ(s(10), 0.2);
  EXPECT_LT(s(1) - s(0), s(5) - s(4));
}

TEST(Schedule, ProportionalToLrIsNeverNegative) {
  const Schedule s = proportional_to_lr(0.1, 0.2, 0.01, 0.1);
  EXPECT_TRUE(s.needs_lr());
  EXPECT_DOUBLE_EQ(s(0, 0.1), 0.2);
  EXPECT_DOUBLE_EQ(s(0, 0.01), 0.1);
  EXPECT_NEAR(s(0, 0.055), 0.15, 1e-15);
  EXPECT_DOUBLE_EQ(proportional_to_lr(0.0, 0.2, 0.05, 0.1)(0, 0.0), 0.0);
}

TEST(Schedule, CustomAndConstant) {
  EXPECT_DOUBLE_EQ(constant(0.3)(99), 0.3);
  EXPECT_DOUBLE_EQ(custom([](int64_t step) { return 2.0 * static_cast<double>(step); })(4), 8.0);
  EXPECT_FALSE(Schedule());
  EXPECT_TRUE(constant(0.0));
}

TEST(Schedule, VariesUnlessItIsConstantOrNotThere) {
  EXPECT_FALSE(Schedule().varies());
  EXPECT_FALSE(constant(0.1).varies());
  EXPECT_TRUE(linear(0.0, 1.0, 3).varies());
  EXPECT_TRUE(cosine(0.0, 1.0, 3).varies());
  EXPECT_TRUE(proportional_to_lr(0.0, 1.0, 0.1, 0.2).varies());
  EXPECT_TRUE(custom([](int64_t) { return 0.1; }).varies());
}

TEST(Schedule, BadNumbersAreErrors) {
  EXPECT_ANY_THROW(linear(0.0, 1.0, 0));
  EXPECT_ANY_THROW(cosine(0.0, std::numeric_limits<double>::infinity(), 3));
  EXPECT_ANY_THROW(proportional_to_lr(0.0, 1.0, 0.1, 0.1));
  EXPECT_ANY_THROW(custom(nullptr));
}

TEST(Steps, EveryKthStepFromTheFirst) {
  const Steps s = Steps().every(3);
  EXPECT_TRUE(s.perturbs(0));
  EXPECT_FALSE(s.perturbs(1));
  EXPECT_FALSE(s.perturbs(2));
  EXPECT_TRUE(s.perturbs(3));
}

TEST(Steps, FromStepAndLatePhase) {
  EXPECT_FALSE(Steps().from_step(5).perturbs(4));
  EXPECT_TRUE(Steps().from_step(5).perturbs(5));
  const Steps late = Steps().last(0.2, 100);
  EXPECT_FALSE(late.perturbs(79));
  EXPECT_TRUE(late.perturbs(80));
  EXPECT_TRUE(late.perturbs(500));
  EXPECT_FALSE(Steps().last(0.0, 10).perturbs(9));
  EXPECT_TRUE(Steps().last(1.0, 10).perturbs(0));
}

TEST(Steps, AreSettledWhereAllThatComeAreAlike) {
  EXPECT_TRUE(Steps().settled(0));
  EXPECT_FALSE(Steps().every(2).settled(0));
  EXPECT_FALSE(Steps().every(2).settled(1));
  EXPECT_FALSE(Steps().from_step(5).settled(4));
  EXPECT_TRUE(Steps().from_step(5).settled(5));
  EXPECT_FALSE(Steps().last(0.2, 100).settled(79));
  EXPECT_TRUE(Steps().last(0.2, 100).settled(80));
}

TEST(Steps, BadNumbersAreErrors) {
  EXPECT_ANY_THROW(Steps().every(0));
  EXPECT_ANY_THROW(Steps().from_step(-1));
  EXPECT_ANY_THROW(Steps().last(1.5, 10));
  EXPECT_ANY_THROW(Steps().last(0.5, 0));
}

}  // namespace
}  // namespace steppe::schedule
