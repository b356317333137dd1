// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/types.h>

#include <vector>

namespace steppe::ascent {
namespace {

TEST(Chain, CentralizesThenFiltersThenScales) {
  torch::manual_seed(1);
  const at::Tensor w = torch::randn({6, 8}, at::kDouble), g = torch::randn({6, 8}, at::kDouble) + 0.7;
  const at::Tensor before = w.clone();
  const Perturbation at({w}, {g}, 0.3, Chain(Centralize(), ZScoreFilter().percentile(0.75), AdaptiveScale()));

  const at::Tensor c = g - g.mean(1, true);
  const at::Tensor distance = (c - c.mean()).abs();
  const at::Tensor f = c * (distance > at::quantile(distance, 0.75));
  const at::Tensor t = before.abs() + 0.01;
  EXPECT_TRUE(at::allclose(w - before, t * t * f * (0.3 / (t * f).norm().item<double>()), 1e-10, 1e-13));
}

TEST(Chain, LinksAreReachedByType) {
  Chain<Centralize, ZScoreFilter> chain;
  chain.get<ZScoreFilter>().percentile(0.8);
  EXPECT_EQ(direction_of(chain).recipe.filter.level, 0.8);
  EXPECT_TRUE(direction_of(chain).recipe.centralize.on);
}

TEST(Chain, TakesItsRhoFromTheLinkThatNamesOne) {
  Chain<Centralize, AdaptiveScale> chain;
  EXPECT_EQ(default_rho_of(chain), 0.5);
  Chain<Centralize, ZScoreFilter> plain;
  EXPECT_EQ(default_rho_of(plain), 0.05);
}

TEST(Chain, ACallableRunsBeforeTheFusedLinks) {
  const auto only_first_row = [](std::vector<at::Tensor>& direction, const std::vector<at::Tensor>&) {
    direction[0].slice(0, 1).zero_();
  };
  const at::Tensor w = torch::zeros({3, 3}, at::kDouble);
  const at::Tensor g = torch::arange(9, at::kDouble).view({3, 3}) + 1;
  const at::Tensor g_before = g.clone();
  const Perturbation at({w}, {g}, 1.0, Chain(only_first_row, Centralize()));
  EXPECT_TRUE(g.equal(g_before));  // the gradient itself is never written
  EXPECT_FALSE(w.slice(0, 1).any().item<bool>());
  EXPECT_NEAR(w[0].sum().item<double>(), 0.0, 1e-15);
  EXPECT_NEAR(w[0].norm().item<double>(), 1.0, 1e-14);
}

}  // namespace
}  // namespace steppe::ascent
