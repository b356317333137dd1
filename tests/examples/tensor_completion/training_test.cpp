// SPDX-License-Identifier: MIT
#include "training.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>

#include <steppe/tensorized/norm_deviation.hpp>

#include "../../errors.hpp"
#include "fit.hpp"
#include "low_rank_tensor.hpp"

namespace completion {
namespace {

TrainingSettings settings(const std::string& method, int64_t iterations) {
  TrainingSettings settings;
  settings.method = method;
  settings.ranks = {2, 2, 2};
  settings.iterations = iterations;
  settings.learning_rate = 0.01;
  settings.seed = 3;
  return settings;
}

TEST(Training, AdamCompletesANoiseFreeTensorOfItsRank) {
  const Completion completion = train(low_rank_problem(), settings("adam", 4000), always);
  EXPECT_TRUE(completion.finished);
  EXPECT_GT(completion.last().training, 0.999);
  EXPECT_GT(completion.last().held_out, 0.999);
}

TEST(Training, SamWithoutRadiusAndDasWithoutStrengthAreAdamBitForBit) {
  const Completion adam = train(low_rank_problem(), settings("adam", 200), always);
  TrainingSettings no_radius = settings("sam", 200), no_strength = settings("das", 200);
  no_radius.rho = 0.0;
  no_strength.alpha = 0.0;
  EXPECT_TRUE(at::equal(train(low_rank_problem(), no_radius, always).fitted, adam.fitted));
  EXPECT_TRUE(at::equal(train(low_rank_problem(), no_strength, always).fitted, adam.fitted));
  // With them they are not.
  EXPECT_FALSE(at::equal(train(low_rank_problem(), settings("sam", 200), always).fitted, adam.fitted));
  EXPECT_FALSE(at::equal(train(low_rank_problem(), settings("das", 200), always).fitted, adam.fitted));
}

TEST(Training, LooksChangeNothing) {
  // A run that is evaluated after every iteration and one that is not.
  const TrainingSettings few = settings("sam", 50), many = settings("sam", 150);
  const Completion stopped = train(low_rank_problem(), many, [](int64_t iteration) { return iteration < 50; });
  EXPECT_FALSE(stopped.finished);
  EXPECT_EQ(stopped.last().iteration, 50);
  EXPECT_TRUE(at::equal(stopped.fitted, train(low_rank_problem(), few, always).fitted));
}

TEST(Training, TakesTwoGradientsAStepForSamAndOneForDas) {
  EXPECT_EQ(train(low_rank_problem(), settings("adam", 20), always).gradients, 20);
  EXPECT_EQ(train(low_rank_problem(), settings("sam", 20), always).gradients, 40);
  EXPECT_EQ(train(low_rank_problem(), settings("das", 20), always).gradients, 20);
}

TEST(Training, WhatItRecordsIsTheDeviationOfItsCores) {
  const TrainingSettings none = settings("adam", 0);
  const Problem problem = low_rank_problem();
  const Moment first = train(problem, none, always).moments.front();
  const TuckerModel model({30, 6, 8}, none.ranks, none.initial_scale, none.seed);
  const at::Tensor weights = problem.split.training.to(at::kDouble);
  const at::Tensor loss = ((model.full() - problem.values).square() * weights).sum() / weights.sum();
  loss.backward();
  const auto seen = steppe::tensorized::norm_deviation(model.cores());
  EXPECT_NEAR(first.loss, loss.item<double>(), 1e-12 * first.loss);
  EXPECT_DOUBLE_EQ(first.deviation, seen.deviation().item<double>());
  EXPECT_NEAR(first.deviation, seen.deviation_by_pairs().item<double>(), 1e-9 * first.deviation);
  EXPECT_NEAR(first.predicted_rate, seen.predicted_rate(1.0).item<double>(), 1e-9 * std::abs(first.predicted_rate));
  EXPECT_GE(std::abs(first.correlation), 0.0);
  EXPECT_LE(std::abs(first.correlation), 1.0);
  EXPECT_EQ(std::signbit(first.correlation), std::signbit(first.predicted_rate));
  EXPECT_DOUBLE_EQ(first.held_out, r_squared(problem.values, model.full().detach(), problem.split.held_out));
}

TEST(Training, IsTheSameAgainFromItsSeed) {
  TrainingSettings other = settings("adam", 30);
  const Completion once = train(low_rank_problem(), other, always);
  EXPECT_TRUE(at::equal(once.fitted, train(low_rank_problem(), other, always).fitted));
  other.seed = 4;
  EXPECT_FALSE(at::equal(once.fitted, train(low_rank_problem(), other, always).fitted));
}

TEST(Training, WeightDecayMakesSmallerCores) {
  TrainingSettings decayed = settings("adam", 500);
  decayed.weight_decay = 0.01;
  EXPECT_LT(train(low_rank_problem(), decayed, always).last().squared_norm,
            train(low_rank_problem(), settings("adam", 500), always).last().squared_norm);
}

TEST(Training, TheBestMomentIsThatOfTheValidationEntries) {
  Completion completion;
  completion.moments.resize(3);
  completion.moments[1].held_out = 0.9;
  // Without validation entries: the last.
  EXPECT_EQ(&completion.best_by_validation(), &completion.moments[2]);
  for (size_t i = 0; i < 3; ++i) completion.moments[i].validation = i == 0 ? 0.8 : 0.5;
  EXPECT_EQ(&completion.best_by_validation(), &completion.moments[0]);
  // A run that ended in NaN still has its best moment.
  completion.moments[2].validation = presentation::kUnknown;
  EXPECT_EQ(&completion.best_by_validation(), &completion.moments[0]);
}

TEST(Training, LooksAtTheBeginningTheEndAndBetween) {
  EXPECT_EQ(looked_at(1), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(looked_at(0), (std::vector<int64_t>{0}));
  const std::vector<int64_t> looks = looked_at(50000);
  EXPECT_EQ(looks.front(), 0);
  EXPECT_EQ(looks.back(), 50000);
  EXPECT_LT(looks.size(), 160u);
}

TEST(Training, RefusesUnknownMethods) {
  EXPECT_NE(message_of([] { train(low_rank_problem(), settings("adma", 5), always); }).find("no method 'adma'"),
            std::string::npos);
}

}  // namespace
}  // namespace completion
