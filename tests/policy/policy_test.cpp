// On which steps the weights are perturbed.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <cmath>
#include <cstdint>
#include <algorithm>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>
#include <steppe/step/checkpoint.hpp>
#include <steppe/training/learning_rate.hpp>

#include "../errors.hpp"

namespace steppe::policy {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

/// A gradient of the given length.
struct Slope {
  at::Tensor w = torch::zeros({2}, at::kDouble).requires_grad_();
  int passes = 0;

  template <class Optimizer>
  bool step(Optimizer& optimizer, double slope = 1.0) {
    optimizer.step([&] {
      ++passes;
      at::Tensor loss = (w * torch::tensor({0.6 * slope, 0.8 * slope}, at::kDouble)).sum();
      loss.backward();
      return loss;
    });
    return optimizer.report().perturbed;
  }
};

TEST(Tail, IsTheLastShareOfTheSteps) {
  Slope slope;
  steppe::Tail<SGD> sam({slope.w}, SGDOptions(0.1));
  sam.policy().total(10).share(0.3);
  EXPECT_EQ(sam.policy().first_step(), 7);
  std::vector<bool> perturbed;
  for (int i = 0; i < 12; ++i) perturbed.push_back(slope.step(sam));
  EXPECT_EQ(perturbed, (std::vector<bool>{0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1}));  // and any after them
  EXPECT_EQ(slope.passes, 17);
  EXPECT_NEAR(sam.report().perturbed_share, 5.0 / 12, 1e-15);
}

TEST(Tail, ItsRadiusGrowsOverTheRamp) {
  Slope slope;
  steppe::Tail<SGD> sam({slope.w}, SGDOptions(0.1), Options().rho(0.5));
  sam.policy().total(4).share(1.0).ramp(4);
  for (const double expected : {0.125, 0.25, 0.375, 0.5, 0.5}) {
    slope.step(sam);
    EXPECT_NEAR(sam.report().perturbation_norm.item<double>(), expected, 1e-15);
  }
}

TEST(Tail, NeedsTheNumberOfStepsBeforeTheFirst) {
  Slope slope;
  steppe::Tail<SGD> sam({slope.w}, SGDOptions(0.1));
  EXPECT_NE(message_of([&] { slope.step(sam); }).find("call policy().total(steps), got 0"), std::string::npos);
  sam.policy().total(10).share(1.5);
  EXPECT_NE(message_of([&] { slope.step(sam); }).find("share() must be in [0, 1], got 1.5"), std::string::npos);
  EXPECT_EQ(slope.passes, 0);
}

TEST(Tail, OneThatNeverBeganIsTold) {
  const auto told_by = [](int steps, bool moved) {
    testing::internal::CaptureStderr();
    {
      Slope slope;
      steppe::Tail<SGD> sam({slope.w}, SGDOptions(0.1));
      sam.policy().total(10).share(0.5);
      for (int i = 0; i < steps; ++i) slope.step(sam);
      if (moved) steppe::Tail<SGD> other(std::move(sam));
    }
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(told_by(0, false), "");
  EXPECT_NE(told_by(5, false).find("ended after 5 steps, before the tail that was to be perturbed, which begins at step 5"),
            std::string::npos);
  EXPECT_EQ(told_by(6, false), "");
  const std::string once = told_by(5, true);
  EXPECT_NE(once.find("before the tail"), std::string::npos);
  EXPECT_EQ(once.find("before the tail", once.find("before the tail") + 1), std::string::npos);
}

TEST(Tail, ResumesAndSharesItsBoundaryWithTheLearningRate) {
  Slope slope;
  steppe::Tail<SGD> sam({slope.w}, SGDOptions(0.1));
  sam.policy().total(10).share(0.4).ramp(2);
  training::LearningRate rate(sam, training::wsd(sam.policy(), /*warmup=*/0, /*floor=*/0.0));
  for (int i = 0; i < 7; ++i) {
    slope.step(sam);
    rate.step();
  }
  EXPECT_NEAR(sam.param_groups()[0].options().get_lr(), 0.1 * (1 - 1.0 / 4), 1e-15);
  std::stringstream file;
  torch::save(sam, file);
  steppe::Tail<SGD> again({slope.w}, SGDOptions(0.1));
  torch::load(again, file);
  EXPECT_EQ(again.policy().first_step(), 6);
  slope.step(again);
  EXPECT_NEAR(again.report().perturbation_norm.item<double>(), 0.05, 1e-15);
  EXPECT_NEAR(again.report().perturbed_share, 2.0 / 8, 1e-15);
}

TEST(Adaptive, ComparesTheSquaredNormWithItsAverages) {
  Adaptive policy;
  policy.total(10).c_first(1.0).c_last(1.0);
  double mean = 0.0, variance = std::exp(-10.0);
  int64_t step = 0;
  for (const double s : {4.0, 1.0, 0.5, 9.0, 0.2}) {
    mean = 0.9 * mean + 0.1 * s;
    variance = 0.9 * variance + 0.1 * (s - mean) * (s - mean);
    policy.begin();
    EXPECT_EQ(policy.decides(step++, s), s >= mean + std::sqrt(variance)) << s;
    policy.commit();
  }
}

TEST(Adaptive, WhatAFailedStepHasSeenDoesNotCount) {
  Slope ours, twin;
  AESAM<SGD> sam({ours.w}, SGDOptions(0.1)), other({twin.w}, SGDOptions(0.1));
  for (auto* each : {&sam, &other}) each->policy().total(20).c_first(0.0).c_last(0.0);
  std::vector<bool> decided, expected;
  for (const double slope : {1.0, 0.2, 0.9}) decided.push_back(ours.step(sam, slope));
  EXPECT_ANY_THROW(sam.step([&]() -> at::Tensor {
    (ours.w.sum() * 1000).backward();
    throw std::runtime_error("on purpose");
  }));
  int pass = 0;
  EXPECT_ANY_THROW(sam.step([&]() -> at::Tensor {
    if (++pass == 2) throw std::runtime_error("on purpose");
    at::Tensor loss = ours.w.sum() * 1000;
    loss.backward();
    return loss;
  }));
  for (const double slope : {0.5, 0.45, 0.8, 0.3}) decided.push_back(ours.step(sam, slope));
  for (const double slope : {1.0, 0.2, 0.9, 0.5, 0.45, 0.8, 0.3}) expected.push_back(twin.step(other, slope));
  EXPECT_EQ(decided, expected);
  EXPECT_NE(std::count(decided.begin(), decided.end(), true), 0);
  EXPECT_NE(std::count(decided.begin(), decided.end(), false), 0);
}

TEST(Adaptive, TheThreeWaysToMakeAStepDecideAlike) {
  std::vector<std::vector<bool>> decided;
  for (const int way : {0, 1, 2}) {
    Slope slope;
    AESAM<SGD> sam({slope.w}, SGDOptions(0.1));
    sam.policy().total(6).c_first(1.0).c_last(-1.0);
    decided.emplace_back();
    for (const double size : {1.0, 0.2, 0.9, 0.5, 0.45, 0.8}) {
      const auto pass = [&] {
        at::Tensor loss = (slope.w * size).sum();
        loss.backward();
        return loss;
      };
      if (way == 0) {
        sam.step(pass);
      } else {
        sam.zero_grad();
        pass();
        if (way == 2 && sam.ascend()) pass();
        way == 2 ? sam.descend() : static_cast<void>(sam.step());
      }
      decided.back().push_back(sam.report().perturbed);
    }
  }
  EXPECT_EQ(decided[0], decided[1]);
  EXPECT_EQ(decided[0], decided[2]);
}

TEST(Adaptive, NeedsTheNumberOfSteps) {
  Slope slope;
  AELookSAM<SGD> sam({slope.w}, SGDOptions(0.1));
  EXPECT_NE(message_of([&] { slope.step(sam); }).find("call policy().total(steps), got 0"), std::string::npos);
}

TEST(Tail, OneOfNoStepsIsNotMissed) {
  testing::internal::CaptureStderr();
  {
    Slope slope;
    steppe::Tail<SGD> sam({slope.w}, SGDOptions(0.1));
    sam.policy().total(4).share(0.0);
    for (int i = 0; i < 4; ++i) slope.step(sam);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Adaptive, ResumesWithWhatItHasSeen) {
  const std::vector<double> slopes = {1.0, 0.2, 0.9, 0.5, 0.45, 0.8, 0.3, 0.31};
  Slope whole, first, second;
  AESAM<SGD> at_once({whole.w}, SGDOptions(0.1)), before({first.w}, SGDOptions(0.1)), after({second.w}, SGDOptions(0.1));
  for (auto* each : {&at_once, &before}) each->policy().total(20).c_first(0.0).c_last(0.0);
  std::vector<bool> expected, found;
  for (const double slope : slopes) expected.push_back(whole.step(at_once, slope));
  for (size_t i = 0; i < 4; ++i) found.push_back(first.step(before, slopes[i]));
  std::stringstream file;
  torch::save(before, file);
  torch::load(after, file);
  for (size_t i = 4; i < slopes.size(); ++i) found.push_back(second.step(after, slopes[i]));
  EXPECT_EQ(found, expected);
  EXPECT_EQ(after.policy().total(), 20);
}

/// What a damaged file may hold in a policy's place.
struct DamagedTail {
  int64_t total, ramp;
  double share;
  template <class Fields>
  void fields(Fields& field) {
    field("total", total);
    field("share", share);
    field("ramp", ramp);
  }
};

TEST(Tail, ADamagedOneIsRefused) {
  const auto read = [](const DamagedTail& written) {
    std::stringstream file;
    torch::serialize::OutputArchive out;
    checkpoint::Writer write(out);
    write("policy", written);
    out.save_to(file);
    torch::serialize::InputArchive in;
    in.load_from(file);
    checkpoint::Reader reader(in);
    policy::Tail tail;
    return message_of([&] { reader("policy", tail); });
  };
  EXPECT_EQ(read({10, 0, 0.5}), "");
  EXPECT_EQ(read({0, 0, 0.5}), "");  // not set yet
  EXPECT_NE(read({-5, 0, 0.5}).find("a training of -5 steps; it is damaged"), std::string::npos);
  EXPECT_NE(read({10, 0, std::nan("")}).find("must be in [0, 1], got nan"), std::string::npos);
  EXPECT_NE(read({10, -1, 0.5}).find("ramp() must be at least 0, got -1"), std::string::npos);
}

}  // namespace
}  // namespace steppe::policy
