// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/ascent/adaptive_scale.hpp>
#include <steppe/perturbation.hpp>
#include <torch/types.h>

#include <vector>

namespace steppe::ascent {
namespace {

/// e = rho T^2 g / |T g| for given T, to compare with.
std::vector<at::Tensor> expected(const std::vector<at::Tensor>& g, const std::vector<at::Tensor>& t, double rho) {
  double squared = 0.0;
  for (size_t i = 0; i < g.size(); ++i) squared += (t[i] * g[i]).abs().square().sum().item<double>();
  std::vector<at::Tensor> e;
  for (size_t i = 0; i < g.size(); ++i) e.push_back(t[i] * t[i] * g[i] * (rho / std::sqrt(squared)));
  return e;
}

struct AdaptiveScaleTest : testing::Test {
  void SetUp() override {
    torch::manual_seed(1);
    w = {torch::randn({3, 4}, at::kDouble), torch::randn({3}, at::kDouble)};
    g = {torch::randn({3, 4}, at::kDouble), torch::randn({3}, at::kDouble)};
    before = {w[0].clone(), w[1].clone()};
  }

  void expect_e(const std::vector<at::Tensor>& e) {
    for (size_t i = 0; i < e.size(); ++i) EXPECT_TRUE(at::allclose(w[i] - before[i], e[i], 1e-10, 1e-12)) << i;
  }

  std::vector<at::Tensor> w, g, before;
};

TEST_F(AdaptiveScaleTest, ThePaperScalesWeightsAndNotBiases) {
  const Perturbation at(w, g, 0.5, AdaptiveScale());
  expect_e(expected(g, {before[0].abs() + 0.01, torch::ones({3}, at::kDouble)}, 0.5));
}

TEST_F(AdaptiveScaleTest, AMarkedGroupScalesItsVectorsAsGains) {
  const Perturbation at(w, g, 0.5, AdaptiveScale().vectors(true));
  expect_e(expected(g, {before[0].abs() + 0.01, before[1].abs() + 0.01}, 0.5));
}

TEST_F(AdaptiveScaleTest, Davda54ScalesEverythingWithoutEta) {
  const Perturbation at(w, g, 2.0, AdaptiveScale::davda54());
  expect_e(expected(g, {before[0].abs(), before[1].abs()}, 2.0));
}

TEST_F(AdaptiveScaleTest, ComplexParametersUseTheirModulus) {
  const at::Tensor z = torch::randn({3, 2}, at::kComplexDouble), gz = torch::randn({3, 2}, at::kComplexDouble);
  const at::Tensor z_before = z.clone();
  const Perturbation at({z}, {gz}, 0.5, AdaptiveScale());
  const at::Tensor t = z_before.abs() + 0.01;
  EXPECT_TRUE(at::allclose(z - z_before, expected({gz}, {t}, 0.5)[0], 1e-10, 1e-12));
}

TEST(AdaptiveScale, EachConventionBringsItsRho) {
  EXPECT_EQ(AdaptiveScale::paper().default_rho(), 0.5);
  EXPECT_EQ(AdaptiveScale::davda54().default_rho(), 2.0);
}

TEST(AdaptiveScale, ANegativeEtaIsAnError) { EXPECT_ANY_THROW(AdaptiveScale().eta(-1.0).validate()); }

}  // namespace
}  // namespace steppe::ascent
