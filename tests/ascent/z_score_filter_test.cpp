// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/ascent/z_score_filter.hpp>
#include <steppe/perturbation.hpp>
#include <torch/types.h>

#include <string>
#include <vector>

#include "../errors.hpp"

namespace steppe::ascent {
namespace {

std::vector<at::Tensor> perturbed(const std::vector<at::Tensor>& gradients, ZScoreFilter link, double rho = 0.5) {
  std::vector<at::Tensor> weights, moved;
  for (const at::Tensor& g : gradients) weights.push_back(torch::zeros_like(g));
  const Perturbation at(weights, gradients, rho, link);
  for (const at::Tensor& w : weights) moved.push_back(w.clone());
  return moved;
}

TEST(ZScoreFilter, KeepsOnlyTheTailOfEachLayer) {
  torch::manual_seed(1);
  const at::Tensor g = torch::randn({40, 25}, at::kDouble);
  const at::Tensor e = perturbed({g}, ZScoreFilter())[0];
  EXPECT_EQ((e != 0).sum().item<int64_t>(), 50);  // the top 5 % of 1000
  const at::Tensor distance = (g - g.mean()).abs();
  EXPECT_GT(distance.index({e != 0}).min().item<double>(), distance.index({e == 0}).max().item<double>());
  EXPECT_TRUE(at::allclose(e.index({e != 0}) / e.norm(), g.index({e != 0}) / g.index({e != 0}).norm()));
}

TEST(ZScoreFilter, VectorsAndTensorsOfTwoElementsAreNotFiltered) {
  const std::vector<at::Tensor> g = {torch::tensor({1.0, 2.0, 3.0, 30.0}, at::kDouble),
                                     torch::tensor({{1.0, 5.0}}, at::kDouble)};
  for (const at::Tensor& e : perturbed(g, ZScoreFilter().percentile(0.5))) EXPECT_TRUE((e != 0).all().item<bool>());
  EXPECT_FALSE((perturbed(g, ZScoreFilter().percentile(0.5).min_dim(1))[0] != 0).all().item<bool>());
}

TEST(ZScoreFilter, ALayerWithoutATailKeepsItsGradient) {
  const std::vector<at::Tensor> g = {torch::full({3, 4}, 0.5, at::kDouble), torch::ones({1, 1}, at::kDouble)};
  const double norm = std::sqrt(12 * 0.25 + 1.0);
  const auto e = perturbed(g, ZScoreFilter());
  EXPECT_TRUE(at::allclose(e[0], g[0] * (0.5 / norm), 1e-14, 0));
  EXPECT_TRUE(at::allclose(e[1], g[1] * (0.5 / norm), 1e-14, 0));
}

TEST(ZScoreFilter, ReleasedCodeNormalizesEachFilteredTensorByItself) {
  torch::manual_seed(2);
  const std::vector<at::Tensor> g = {torch::randn({8, 9}, at::kDouble), torch::randn({5, 6}, at::kDouble) * 100,
                                     torch::full({2, 2}, 3.0, at::kDouble), torch::randn({7}, at::kDouble)};
  double squared = 0.0;
  for (const at::Tensor& each : g) squared += each.square().sum().item<double>();
  const auto e = perturbed(g, ZScoreFilter::released_code());
  EXPECT_NEAR(e[0].norm().item<double>(), 0.5, 1e-10);
  EXPECT_NEAR(e[1].norm().item<double>(), 0.5, 1e-10);
  EXPECT_TRUE(at::allclose(e[2], g[2] * (0.5 / std::sqrt(squared)), 1e-13, 0));  // its tail is empty
  EXPECT_TRUE(at::allclose(e[3], g[3] * (0.5 / std::sqrt(squared)), 1e-13, 0));
}

TEST(ZScoreFilter, EnergyAndRobustSelect) {
  const at::Tensor g = torch::tensor({{1.0, 1.0, 1.0, 10.0}, {1.0, 1.0, 1.0, 8.0}}, at::kDouble);
  EXPECT_EQ((perturbed({g}, ZScoreFilter().energy(0.9))[0] != 0).sum().item<int64_t>(), 2);
  EXPECT_EQ((perturbed({g}, ZScoreFilter().energy(0.5))[0] != 0).sum().item<int64_t>(), 1);
  const at::Tensor robust = perturbed({g}, ZScoreFilter().z_score(ZScore::Robust).percentile(0.5))[0];
  EXPECT_EQ((robust != 0).sum().item<int64_t>(), 2);
}

TEST(ZScoreFilter, APercentileScheduleFollowsTheStep) {
  ZScoreFilter link = ZScoreFilter().percentile_schedule(schedule::linear(0.5, 0.9, 10));
  EXPECT_DOUBLE_EQ(direction_of(link, 0).recipe.filter.level, 0.5);
  EXPECT_DOUBLE_EQ(direction_of(link, 5).recipe.filter.level, 0.7);
  EXPECT_DOUBLE_EQ(direction_of(link, 50).recipe.filter.level, 0.9);
}

TEST(ZScoreFilter, BadSettingsAreNamed) {
  const auto says = [](const ZScoreFilter& link) { return message_of([&] { link.validate(); }); };
  EXPECT_NE(says(ZScoreFilter().percentile(1.0)).find("[0, 1), got 1"), std::string::npos);
  EXPECT_NE(says(ZScoreFilter().percentile(-0.1)).find("got -0.1"), std::string::npos);
  EXPECT_NE(says(ZScoreFilter().percentile(std::nan(""))).find("got nan"), std::string::npos);
  EXPECT_NE(says(ZScoreFilter().energy(1.5)).find("got 1.5"), std::string::npos);
  EXPECT_NE(says(ZScoreFilter().energy(0.9).threshold(Threshold::Global)).find("within each tensor"), std::string::npos);
  EXPECT_NE(says(ZScoreFilter::released_code().threshold(Threshold::Global)).find("per tensor"), std::string::npos);
  ZScoreFilter wild = ZScoreFilter().percentile_schedule(schedule::linear(0.5, 1.5, 10));
  EXPECT_NE(message_of([&] { direction_of(wild, 10); }).find("got 1.5"), std::string::npos);
}

TEST(ZScoreFilter, VariesWithAScheduleThatItFollows) {
  EXPECT_FALSE(ZScoreFilter().varies());
  EXPECT_FALSE(ZScoreFilter().percentile_schedule(schedule::constant(0.9)).varies());
  EXPECT_TRUE(ZScoreFilter().percentile_schedule(schedule::linear(0.9, 0.95, 10)).varies());
  EXPECT_FALSE(ZScoreFilter().percentile_schedule(schedule::linear(0.9, 0.95, 10)).energy(0.9).varies());
  const ZScoreFilter follows = ZScoreFilter().percentile_schedule(schedule::linear(0.9, 0.95, 10));
  EXPECT_TRUE(steppe::detail::varies(follows));
  EXPECT_FALSE(steppe::detail::varies(0));  // a link without varies()
}

}  // namespace
}  // namespace steppe::ascent
