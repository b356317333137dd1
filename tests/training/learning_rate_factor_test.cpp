// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <steppe/policy/tail.hpp>
#include <steppe/training/learning_rate_factor.hpp>

#include "../errors.hpp"

namespace steppe::training {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Like an optimizer's tail: not a type of this folder.
struct TailOfAnOptimizer {
  int64_t total() const { return 10; }
  int64_t first_step() const { return 6; }
};

std::vector<double> values_of(const LearningRateFactor& factor, int64_t steps) {
  std::vector<double> values;
  for (int64_t t = 0; t < steps; ++t) values.push_back(factor(t));
  return values;
}

void expect_near(const std::vector<double>& values, const std::vector<double>& expected) {
  ASSERT_EQ(values.size(), expected.size());
  for (size_t t = 0; t < values.size(); ++t) EXPECT_NEAR(values[t], expected[t], 1e-15) << "t = " << t;
}

TEST(TailBoundary, IsTheShareRoundedHalvesUp) {
  EXPECT_EQ(TailBoundary::of_share(10, 0.3).first_step(), 7);
  EXPECT_EQ(TailBoundary::of_share(1000, 0.25).first_step(), 750);
  EXPECT_EQ(TailBoundary::of_share(7, 0.3).first_step(), 5);  // 4.9
  EXPECT_EQ(TailBoundary::of_share(5, 0.3).first_step(), 4);  // 3.5
  EXPECT_EQ(TailBoundary::of_share(5, 0.5).first_step(), 3);  // 2.5
  EXPECT_EQ(TailBoundary::of_share(10, 0.0).first_step(), 10);
  EXPECT_EQ(TailBoundary::of_share(10, 1.0).first_step(), 0);
  EXPECT_EQ(TailBoundary::of_share(10, 1.0).total(), 10);
}

TEST(LearningRateFactor, WsdWarmsUpStaysAndFallsInAStraightLine) {
  // T = 10, t0 = 6, 4 steps of warm-up, a fifth is left: 1 - 0.8 (t - 6)/4.
  expect_near(values_of(wsd(10, 0.4, 4, 0.2), 13), {0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2});
  expect_near(values_of(wsd(4, 1.0, 0, 0.0), 6), {1.0, 0.75, 0.5, 0.25, 0.0, 0.0});
}

TEST(LearningRateFactor, CosineTailStaysAndFallsInHalfACosine) {
  const double root = std::sqrt(0.5);  // cos(pi/4)
  expect_near(values_of(cosine_tail(10, 0.4, 0, 0.2), 12),
              {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2 + 0.4 * (1.0 + root), 0.6, 0.2 + 0.4 * (1.0 - root), 0.2, 0.2});
  expect_near(values_of(cosine_tail(4, 0.5, 2, 0.0), 6), {0.5, 1.0, 1.0, 0.5, 0.0, 0.0});
}

TEST(LearningRateFactor, WarmupCosineFallsAsSoonAsTheWarmupIsOver) {
  // 60 and 120 degrees of the cosine: (1 + 1/2)/2 and (1 - 1/2)/2.
  expect_near(values_of(warmup_cosine(5, 2, 0.0), 7), {0.5, 1.0, 1.0, 0.75, 0.25, 0.0, 0.0});
  expect_near(values_of(warmup_cosine(3, 0, 0.1), 5), {1.0, 0.775, 0.325, 0.1, 0.1});
  expect_near(values_of(warmup_cosine(3, 3, 0.1), 5), {1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0, 1.0});
}

TEST(LearningRateFactor, MultistepMultipliesAtEachMilestone) {
  expect_near(values_of(multistep({2, 3, 5}, 0.5), 7), {1.0, 1.0, 0.5, 0.25, 0.25, 0.125, 0.125});
  expect_near(values_of(multistep({0}, 3.0), 2), {3.0, 3.0});
  expect_near(values_of(multistep({}, 0.1), 2), {1.0, 1.0});
  EXPECT_EQ(multistep({1, 2, 3}, 0.1)(9), 0.1 * 0.1 * 0.1);
}

TEST(LearningRateFactor, TheLastValueIsTheFloorToTheBitAndStays) {
  for (const double floor : {0.0, 0.1, 0.3, 1.0})
    for (const LearningRateFactor& factor :
         {wsd(10, 0.3, 2, floor), cosine_tail(10, 0.3, 2, floor), warmup_cosine(10, 2, floor)})
      for (const int64_t t : {int64_t{10}, int64_t{11}, std::numeric_limits<int64_t>::max()})
        EXPECT_EQ(factor(t), floor);
  EXPECT_EQ(multistep({1, 2}, 0.5)(std::numeric_limits<int64_t>::max()), 0.25);
}

TEST(LearningRateFactor, WithoutATailTheLastValueIsTheFullOne) {
  for (const int64_t t : {4, 9, 10, 11}) {
    EXPECT_EQ(wsd(10, 0.0, 5, 0.1)(t), 1.0);
    EXPECT_EQ(cosine_tail(10, 0.0, 5, 0.1)(t), 1.0);
  }
}

TEST(LearningRateFactor, TakesTheTailOfAnOptimizer) {
  const TailOfAnOptimizer tail;
  const TailBoundary same(10, 6);
  for (int64_t t = 0; t < 12; ++t) {
    EXPECT_EQ(wsd(tail, 4, 0.2)(t), wsd(10, 0.4, 4, 0.2)(t));
    EXPECT_EQ(wsd(same, 4, 0.2)(t), wsd(tail, 4, 0.2)(t));
    EXPECT_EQ(cosine_tail(tail, 1, 0.2)(t), cosine_tail(10, 0.4, 1, 0.2)(t));
    EXPECT_EQ(warmup_cosine(tail, 3, 0.2)(t), warmup_cosine(10, 3, 0.2)(t));
  }
  EXPECT_LT(wsd(tail, 0, 0.0)(tail.first_step() + 1), 1.0);
  EXPECT_EQ(wsd(tail, 0, 0.0)(tail.first_step()), 1.0);
}

TEST(LearningRateFactor, SharesTheBoundaryOfTheTailPolicyAtEveryLengthAndShare) {
  for (int64_t total = 1; total < 60; ++total)
    for (const double share : {0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 1.0}) {
      const policy::Tail tail = policy::Tail().total(total).share(share);
      ASSERT_EQ(TailBoundary::of_share(total, share).first_step(), tail.first_step()) << total << " " << share;
      const LearningRateFactor factor = wsd(tail, 0, 0.0);
      for (int64_t t = 0; t < total; ++t)  // falls from the step after the first perturbed one on
        ASSERT_EQ(factor(t) < 1.0, tail.perturbs(t) && t != tail.first_step()) << total << " " << share << " " << t;
    }
}

TEST(LearningRateFactor, ErrorsNameTheValueAndTheCure) {
  const auto expect_error = [](const auto& make, const std::vector<std::string>& words) {
    const std::string message = message_of(make);
    for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << word << "\n" << message;
  };
  for (const int64_t total : {int64_t{0}, int64_t{-3}, std::numeric_limits<int64_t>::max()}) {
    const std::vector<std::string> words = {"number of optimizer steps of the training, 1 to 2147483647",
                                            "got " + std::to_string(total)};
    expect_error([&] { wsd(total, 0.3, 0, 0.0); }, words);
    expect_error([&] { cosine_tail(total, 0.0, 0, 0.0); }, words);
    expect_error([&] { warmup_cosine(total, 0, 0.0); }, words);
    expect_error([&] { TailBoundary(total, 0); }, words);
  }
  for (const double share : {-0.1, 1.1, kNan}) {
    expect_error([&] { wsd(10, share, 0, 0.0); }, {"share of the tail must be in [0, 1], got"});
    expect_error([&] { cosine_tail(10, share, 0, 0.0); }, {"share of the tail must be in [0, 1], got"});
  }
  expect_error([] { wsd(100, 70, 0, 0.0); }, {"got 70", "TailBoundary(total, first_step)"});
  for (const int64_t first : {-1, 11})
    expect_error([&] { TailBoundary(10, first); },
                 {"within the training of 10 steps", "got step " + std::to_string(first)});
  for (const int64_t warmup : {-1, 7}) {
    const std::vector<std::string> words = {"warm-up must be over", "at step 6", "got " + std::to_string(warmup),
                                            "shorten it"};
    expect_error([&] { wsd(10, 0.4, warmup, 0.0); }, words);
    expect_error([&] { cosine_tail(TailOfAnOptimizer(), warmup, 0.0); }, words);
  }
  expect_error([] { warmup_cosine(10, 11, 0.0); }, {"warm-up must be over", "at step 10", "got 11"});
  expect_error([] { warmup_cosine(10, -1, 0.0); }, {"warm-up must be over", "got -1"});
  for (const double floor : {-0.1, 1.1, kNan}) {
    const std::vector<std::string> words = {
        "floor is the share of the learning rate that is left at the end, in [0, 1]"};
    expect_error([&] { wsd(10, 0.4, 0, floor); }, words);
    expect_error([&] { cosine_tail(10, 0.4, 0, floor); }, words);
    expect_error([&] { warmup_cosine(10, 0, floor); }, words);
  }
  expect_error([] { multistep({60, 30}, 0.1); }, {"milestones must increase, got 30 behind 60", "sort them"});
  expect_error([] { multistep({30, 30}, 0.1); }, {"milestones must increase, got 30 behind 30"});
  expect_error([] { multistep({-1, 30}, 0.1); }, {"counted from 0, got -1"});
  for (const double gamma : {0.0, -0.5, kNan, std::numeric_limits<double>::infinity()})
    expect_error([&] { multistep({30}, gamma); }, {"gamma", "must be over 0, got"});
}

}  // namespace
}  // namespace steppe::training
