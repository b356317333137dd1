// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/cuda.h>
#include <torch/optim/adam.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/types.h>

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "../errors.hpp"

namespace steppe {
namespace {

using torch::optim::OptimizerParamGroup;
using torch::optim::SGD;
using torch::optim::SGDOptions;

at::Tensor number(double value) { return torch::full({1}, value, at::kDouble).requires_grad_(); }

void set_gradient(const at::Tensor& param, double value) {
  param.mutable_grad() = torch::full({1}, value, at::kDouble);
}

/// loss = (a b - 1)^2 / 2
at::Tensor product_loss(const at::Tensor& a, const at::Tensor& b) { return (a * b - 1.0).square().sum().div(2); }

TEST(DeviationAwareScaling, IsThePapersRuleThenTheBasesStep) {
  const at::Tensor a = number(2.0), b = number(-1.0);
  DAS<SGD> das(std::vector<at::Tensor>{a, b}, SGDOptions(0.1), ScalingOptions().alpha(0.5));
  set_gradient(a, 3.0);
  set_gradient(b, 1.0);
  das.step();
  // |G|^2 = 4, 1; |g|^2 = 9, 1; gbar = 5; u = 10^-1/2
  const double by = 0.1 * 0.5 / std::sqrt(10.0);
  EXPECT_NEAR(a.item<double>(), 2.0 * (1.0 + by * 4.0 / 4.0) - 0.3, 1e-12);
  EXPECT_NEAR(b.item<double>(), -1.0 * (1.0 - by * 4.0 / 1.0) - 0.1, 1e-12);
  EXPECT_EQ(das.scaling_steps(), 1);
}

TEST(DeviationAwareScaling, TheReleasedCodesRuleDividesByTheNorm) {
  const at::Tensor a = number(2.0), b = number(-1.0);
  DAS<SGD> das(std::vector<at::Tensor>{a, b}, SGDOptions(0.1), ScalingOptions().alpha(0.5).norm_power(1));
  set_gradient(a, 3.0);
  set_gradient(b, 1.0);
  das.step();
  const double by = 0.1 * 0.5 / std::sqrt(10.0);
  EXPECT_NEAR(a.item<double>(), 2.0 * (1.0 + by * 4.0 / 2.0) - 0.3, 1e-12);
}

TEST(DeviationAwareScaling, OneStepChangesTheDeviationAsTheFlowOfSam) {
  torch::manual_seed(4);
  std::vector<at::Tensor> cores;
  for (const double size : {1.0, 2.0, 0.5})
    cores.push_back((torch::randn({5, 2}, at::kDouble) * size).requires_grad_());
  const at::Tensor target = torch::randn({5, 5, 5}, at::kDouble);
  (at::einsum("ir,jr,kr->ijk", {cores[0], cores[1], cores[2]}) - target).square().sum().div(2).backward();
  const double lr = 1e-8, alpha = 0.1;
  const auto before = tensorized::norm_deviation(cores);
  DAS<SGD> das(cores, SGDOptions(lr), ScalingOptions().alpha(alpha));
  das.step();
  const double change =
      tensorized::norm_deviation(cores).deviation().item<double>() - before.deviation().item<double>();
  EXPECT_NEAR(change / (lr * before.predicted_rate(alpha).item<double>()), 1.0, 1e-5);
}

TEST(DeviationAwareScaling, GroupsWithAlphaZeroAreOrdinaryParameters) {
  const at::Tensor a = number(2.0), b = number(-1.0), c = number(2.0), d = number(-1.0);
  DAS<SGD> das(std::vector<OptimizerParamGroup>{OptimizerParamGroup({a, b}), OptimizerParamGroup({c, d})},
               SGDOptions(0.1));
  das.scaling(1).alpha(0.0);
  for (const at::Tensor& each : {a, b, c, d}) set_gradient(each, each.item<double>());
  das.step();
  EXPECT_NEAR(c.item<double>(), 1.8, 1e-12);
  EXPECT_NEAR(d.item<double>(), -0.9, 1e-12);
  EXPECT_NE(a.item<double>(), c.item<double>());
}

TEST(DeviationAwareScaling, TheNormMayBeGlobal) {
  const auto one_step = [](GradientNorm norm) {
    const at::Tensor a = number(2.0), b = number(-1.0), c = number(1.0), d = number(1.0);
    DAS<SGD> das(std::vector<OptimizerParamGroup>{OptimizerParamGroup({a, b}), OptimizerParamGroup({c, d})},
                 SGDOptions(0.1), ScalingOptions().alpha(0.5).gradient_norm(norm));
    set_gradient(a, 3.0);
    set_gradient(b, 1.0);
    set_gradient(c, 5.0);
    set_gradient(d, 1.0);
    das.step();
    return (a.item<double>() + 0.3) / 2.0 - 1.0;
  };
  EXPECT_NEAR(one_step(GradientNorm::PerLayer) / one_step(GradientNorm::Global), std::sqrt(36.0 / 10.0), 1e-9);
}

TEST(DeviationAwareScaling, WhatIsZeroOrNotFiniteIsNotScaled) {
  const at::Tensor a = number(0.0), b = number(-1.0);
  DAS<SGD> das(std::vector<at::Tensor>{a, b}, SGDOptions(0.1));
  set_gradient(b, 0.0);
  das.step();
  EXPECT_EQ(a.item<double>(), 0.0);
  EXPECT_EQ(b.item<double>(), -1.0);
  set_gradient(a, 1.0);  // |a| = 0
  das.step();
  EXPECT_NEAR(a.item<double>(), -0.1, 1e-12);
}

TEST(DeviationAwareScaling, AlphaFollowsItsSchedule) {
  const at::Tensor a = number(2.0), b = number(-1.0);
  DAS<SGD> das(std::vector<at::Tensor>{a, b}, SGDOptions(0.1),
               ScalingOptions().alpha_schedule(schedule::linear(0.0, 1.0, 1)));
  set_gradient(a, 3.0);
  set_gradient(b, 1.0);
  das.step();
  EXPECT_NEAR(a.item<double>(), 1.7, 1e-12);
  das.step();
  EXPECT_GT(a.item<double>(), 1.4 + 1e-3);
}

TEST(DeviationAwareScaling, ComposesWithSam) {
  const at::Tensor a = number(2.0), b = number(-1.0), x = number(2.0), y = number(-1.0);
  SAM<DAS<SGD>> both(std::vector<at::Tensor>{a, b}, SGDOptions(0.1), Options().rho(0.3));
  both.scaling().alpha(0.5);
  both.step([&] {
    at::Tensor loss = product_loss(a, b);
    loss.backward();
    return loss;
  });
  SAM<SGD> sam(std::vector<at::Tensor>{x, y}, SGDOptions(0.0), Options().rho(0.3));
  sam.step([&] {
    at::Tensor loss = product_loss(x, y);
    loss.backward();
    return loss;
  });
  DAS<SGD> das(std::vector<at::Tensor>{x, y}, SGDOptions(0.1), ScalingOptions().alpha(0.5));
  das.step();  // along the gradients at w + e that SAM left
  EXPECT_NEAR(a.item<double>(), x.item<double>(), 1e-12);
  EXPECT_NEAR(b.item<double>(), y.item<double>(), 1e-12);
}

TEST(DeviationAwareScaling, ItsCheckpointHoldsTheScaling) {
  const at::Tensor a = number(2.0), b = number(-1.0);
  DAS<torch::optim::Adam> first(std::vector<at::Tensor>{a, b}, torch::optim::AdamOptions(0.1),
                                ScalingOptions().alpha(0.7).norm_power(1).gradient_norm(GradientNorm::Global));
  set_gradient(a, 1.0);
  set_gradient(b, 2.0);
  first.step();
  std::stringstream file, of_base;
  torch::save(first, file);
  DAS<torch::optim::Adam> second(std::vector<at::Tensor>{a, b}, torch::optim::AdamOptions(0.1));
  torch::load(second, file);
  EXPECT_EQ(second.scaling().alpha(), 0.7);
  EXPECT_EQ(second.scaling().norm_power(), 1);
  EXPECT_EQ(second.scaling().gradient_norm(), GradientNorm::Global);
  EXPECT_EQ(second.scaling_steps(), 1);
  EXPECT_EQ(second.state().size(), 2u);
  torch::optim::Adam base(std::vector<at::Tensor>{a, b}, torch::optim::AdamOptions(0.1));
  torch::save(base, of_base);
  torch::load(second, of_base);
  EXPECT_EQ(second.scaling().alpha(), 0.7);
}

TEST(DeviationAwareScaling, BadSettingsAreNamedBeforeAnythingMoves) {
  const at::Tensor a = number(2.0), b = number(-1.0);
  const std::vector<at::Tensor> cores = {a, b};
  EXPECT_NE(message_of([&] {
              DAS<SGD>(cores, SGDOptions(0.1), ScalingOptions().alpha(-1.0));
            }).find("alpha must be finite and at least 0, got -1"),
            std::string::npos);
  DAS<SGD> das(cores, SGDOptions(0.1));
  das.scaling().norm_power(3);
  set_gradient(a, 1.0);
  EXPECT_NE(message_of([&] { das.step(); }).find("norm_power must be 2"), std::string::npos);
  EXPECT_EQ(a.item<double>(), 2.0);
  EXPECT_NE(message_of([&] { das.scaling(1); }).find("no parameter group 1"), std::string::npos);
  DAS<torch::optim::LBFGS> lbfgs(cores, torch::optim::LBFGSOptions(0.1));
  EXPECT_NE(message_of([&] {
              lbfgs.step([&] {
                lbfgs.zero_grad();
                at::Tensor loss = product_loss(a, b);
                loss.backward();
                return loss;
              });
            }).find("once a step; LBFGS does not"),
            std::string::npos);
}

TEST(DeviationAwareScaling, OnAGpuIsThatOfTheCpu_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  for (const GradientNorm norm : {GradientNorm::PerLayer, GradientNorm::Global}) {
    std::vector<std::vector<at::Tensor>> ends;
    for (const at::Device device : {at::Device(at::kCPU), at::Device(at::kCUDA)}) {
      torch::manual_seed(4);
      std::vector<OptimizerParamGroup> groups;
      std::vector<at::Tensor> all;
      for (int k = 0; k < 2; ++k) {
        std::vector<at::Tensor> cores;
        for (const double size : {1.0, 2.0})
          cores.push_back((torch::randn({5, 2}, at::kDouble) * size).to(device).requires_grad_());
        all.insert(all.end(), cores.begin(), cores.end());
        groups.emplace_back(cores);
      }
      DAS<SGD> das(groups, SGDOptions(0.05).momentum(0.9), ScalingOptions().alpha(0.5).gradient_norm(norm));
      for (int i = 0; i < 3; ++i)
        das.step([&] {
          das.zero_grad();
          at::Tensor loss = (all[0] * all[1] - 1.0).square().sum() + (all[2] * all[3] + 1.0).square().mean();
          loss.backward();
          return loss;
        });
      for (at::Tensor& each : all) each = each.detach().cpu();
      ends.push_back(all);
    }
    for (size_t i = 0; i < ends[0].size(); ++i) EXPECT_TRUE(at::allclose(ends[1][i], ends[0][i], 1e-10, 1e-12)) << i;
  }
}

}  // namespace
}  // namespace steppe
