// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/low_rank_adapter.hpp>
#include <torch/nn/functional/linear.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/types.h>

#include <cmath>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "against_full_layer.hpp"

namespace steppe::tensorized {
namespace {

using Sizes = std::vector<int64_t>;

/// An adapter over a random layer of 12 to 5 features in float64.
LowRankAdapter adapter_of(torch::nn::Linear linear, const LowRankOptions& options) {
  linear->to(at::kDouble);
  return LowRankAdapter(*linear, options);
}

TEST(LowRankAdapter, StartsAsTheLayerItself) {
  torch::nn::Linear linear(12, 5);
  LowRankAdapter adapter = adapter_of(linear, LowRankOptions(3).alpha(16));
  const at::Tensor input = random({4, 12});
  EXPECT_LT(distance(adapter->forward(input).detach(), linear->forward(input).detach()), 1e-15);
  EXPECT_FALSE(adapter->frozen_weight().is_alias_of(linear->weight));
  EXPECT_EQ(adapter->cores()[0].sizes(), (Sizes{3, 12}));
  EXPECT_EQ(adapter->cores()[1].sizes(), (Sizes{5, 3}));
  EXPECT_EQ(adapter->scale(), 16.0 / 3.0);
  EXPECT_EQ(adapter_of(linear, LowRankOptions(3))->scale(), 1.0);
}

TEST(LowRankAdapter, EqualsTheFullLayerBuiltFromItsCores) {
  for (const bool bias : {true, false}) {
    torch::nn::Linear linear(torch::nn::LinearOptions(12, 5).bias(bias));
    LowRankAdapter adapter = adapter_of(linear, LowRankOptions(3).alpha(2));
    torch::NoGradGuard no_grad;
    adapter->cores()[1].copy_(random({5, 3}, 7));
    const at::Tensor made = linear->weight + at::matmul(adapter->cores()[1], adapter->cores()[0]) * (2.0 / 3.0);
    EXPECT_LT(distance(adapter->weight(), made), 1e-14);
    torch::AutoGradMode grad(true);
    for (const Sizes& sizes : {Sizes{12}, Sizes{4, 12}, Sizes{2, 3, 12}}) {
      for (const Route way : {Route::Cores, Route::Full, Route::Cheapest}) {
        adapter->route(way);
        expect_equal(
            [&](const at::Tensor& x) { return adapter->forward(x); },
            [&](const at::Tensor& x) { return torch::nn::functional::linear(x, adapter->weight(), linear->bias); },
            random(sizes, 4), adapter->cores(), 1e-10);
      }
    }
  }
}

TEST(LowRankAdapter, TrainsItsCoresAlone) {
  torch::nn::Linear linear(12, 5);
  LowRankAdapter adapter = adapter_of(linear, LowRankOptions(3));
  adapter->forward(random({4, 12})).square().sum().backward();
  for (const auto& parameter : adapter->named_parameters())
    EXPECT_EQ(parameter.value().grad().defined(), parameter.key().rfind("core_", 0) == 0) << parameter.key();
  EXPECT_TRUE(adapter->cores()[0].grad().eq(0).all().item<bool>());  // B is zero
  EXPECT_FALSE(adapter->cores()[1].grad().eq(0).any().item<bool>());
  EXPECT_NEAR(
      LowRankAdapter(torch::zeros({300, 400}), at::Tensor(), LowRankOptions(100))->cores()[0].std().item<double>(),
      0.05, 0.001);
}

TEST(LowRankAdapter, EveryRankLearnsAlsoBeyondWhatTheWeightCanHave) {
  LowRankAdapter adapter(torch::zeros({4, 64}, at::kDouble), at::Tensor(), LowRankOptions(8));
  EXPECT_EQ(adapter->cores()[0].sizes(), (Sizes{8, 64}));
  EXPECT_EQ(adapter->cores()[1].sizes(), (Sizes{4, 8}));
  const at::Tensor input = random({10, 64}), target = random({10, 4}, 2), a = adapter->cores()[0].detach().clone();
  torch::optim::SGD sgd(adapter->cores(), torch::optim::SGDOptions(0.05));
  double first = 0.0, loss = 0.0;
  for (int step = 0; step < 10; ++step) {
    sgd.zero_grad();
    const at::Tensor error = (adapter->forward(input) - target).square().mean();
    (step == 0 ? first : loss) = error.item<double>();
    error.backward();
    sgd.step();
  }
  EXPECT_LT(loss, 0.9 * first);
  EXPECT_GT((adapter->cores()[0] - a).norm(2, {1}).min().item<double>(), 1e-4);
  EXPECT_GT(adapter->cores()[1].norm(2, {0}).min().item<double>(), 1e-4);
}

TEST(LowRankAdapter, MergesItsUpdateIntoTheFrozenWeight) {
  torch::nn::Linear linear(12, 5);
  LowRankAdapter adapter = adapter_of(linear, LowRankOptions(3).alpha(9));
  {
    torch::NoGradGuard no_grad;
    adapter->cores()[1].copy_(random({5, 3}, 7));
  }
  const at::Tensor input = random({4, 12}), before = adapter->forward(input).detach();
  adapter->merge();
  EXPECT_LT(distance(adapter->forward(input).detach(), before), 1e-14);
  EXPECT_TRUE(adapter->update().eq(0).all().item<bool>());
  EXPECT_LT(distance(torch::nn::functional::linear(input, adapter->frozen_weight(), adapter->frozen_bias()), before),
            1e-14);
}

TEST(LowRankAdapter, TakesTheWayOfFewerMultiplications) {
  LowRankAdapter adapter(torch::zeros({4, 12}), at::Tensor(), LowRankOptions(2));  // 16 rows against 48
  EXPECT_EQ(adapter->route_for({2, 12}), Route::Cores);
  EXPECT_EQ(adapter->route_for({3, 12}), Route::Full);
}

TEST(LowRankAdapter, IsCopiedSavedAndLoaded) {
  torch::nn::Linear linear(12, 5);
  LowRankAdapter adapter = adapter_of(linear, LowRankOptions(3));
  {
    torch::NoGradGuard no_grad;
    adapter->cores()[1].copy_(random({5, 3}, 7));
  }
  const at::Tensor input = random({4, 12}), before = adapter->forward(input).detach();
  const auto copy = std::dynamic_pointer_cast<LowRankAdapterImpl>(adapter->clone());
  EXPECT_TRUE(copy->forward(input).equal(before));
  EXPECT_FALSE(copy->frozen_weight().is_alias_of(adapter->frozen_weight()));
  EXPECT_FALSE(copy->frozen_weight().requires_grad());
  std::stringstream file;
  torch::save(adapter, file);
  LowRankAdapter other(torch::zeros({5, 12}, at::kDouble), torch::zeros({5}, at::kDouble), LowRankOptions(3));
  torch::load(other, file);
  EXPECT_TRUE(other->forward(input).equal(before));
}

TEST(LowRankAdapter, WhatDoesNotFitIsNamed) {
  const at::Tensor weight = torch::zeros({5, 12});
  const auto says = [&](const at::Tensor& w, const at::Tensor& b, const LowRankOptions& options, const char* words) {
    expect_error([&] { LowRankAdapter(w, b, options); }, words);
  };
  says(weight, {}, LowRankOptions(0), "must be at least 1, got 0");
  says(weight, {}, LowRankOptions(2).alpha(NAN), "alpha must be finite");
  says(weight, torch::zeros({4}), LowRankOptions(2), "a bias of 5 entries is needed, got one of shape [4]");
  says(torch::zeros({5}), {}, LowRankOptions(2), "got one of shape [5]");
  LowRankAdapter adapter(weight, at::Tensor(), LowRankOptions(2));
  expect_error([&] { adapter->forward(torch::ones({2, 5})); }, "[2, 5] does not fit a LowRankAdapter of 12 features");
}

}  // namespace
}  // namespace steppe::tensorized
