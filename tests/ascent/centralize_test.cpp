// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/ascent/centralize.hpp>
#include <steppe/perturbation.hpp>
#include <torch/types.h>

#include <vector>

namespace steppe::ascent {
namespace {

std::vector<at::Tensor> perturbed(const std::vector<at::Tensor>& gradients, const Centralize& link) {
  std::vector<at::Tensor> weights, moved;
  for (const at::Tensor& g : gradients) weights.push_back(torch::zeros_like(g));
  const Perturbation at(weights, gradients, 0.5, link);
  for (const at::Tensor& w : weights) moved.push_back(w.clone());
  return moved;
}

TEST(Centralize, AWeightWithOneColumnIsNotPerturbed) {
  torch::manual_seed(1);
  const auto e = perturbed({torch::randn({4, 1}, at::kDouble), torch::randn({3, 5}, at::kDouble)}, Centralize());
  EXPECT_FALSE(e[0].any().item<bool>());
  EXPECT_NEAR(e[1].norm().item<double>(), 0.5, 1e-12);
}

TEST(Centralize, AloneAWeightWithOneColumnGivesNoNaN) {
  EXPECT_FALSE(perturbed({torch::randn({4, 1})}, Centralize())[0].any().item<bool>());
}

TEST(Centralize, VectorsEnterUnchanged) {
  const at::Tensor g = torch::tensor({3.0, 4.0}, at::kDouble);
  EXPECT_TRUE(at::allclose(perturbed({g}, Centralize())[0], g * 0.1, 1e-14, 0));
}

TEST(Centralize, NormDirectionGivesExactlyRhoAndRawGivesLess) {
  torch::manual_seed(2);
  const std::vector<at::Tensor> g = {torch::randn({6, 4}, at::kDouble) + 1, torch::randn({4}, at::kDouble)};
  const auto norm = [](const std::vector<at::Tensor>& e) {
    return std::sqrt(e[0].square().sum().item<double>() + e[1].square().sum().item<double>());
  };
  EXPECT_NEAR(norm(perturbed(g, Centralize())), 0.5, 1e-12);
  EXPECT_LT(norm(perturbed(g, Centralize().norm(Norm::Raw))), 0.45);
}

TEST(Centralize, ConvOnlyLeavesMatricesAlone) {
  torch::manual_seed(3);
  const auto e = perturbed({torch::randn({3, 4}, at::kDouble) + 1, torch::randn({2, 3, 2, 2}, at::kDouble) + 1},
                           Centralize().conv_only(true));
  EXPECT_GT(e[0].sum(1).abs().min().item<double>(), 1e-3);
  EXPECT_LT(e[1].flatten(1).sum(1).abs().max().item<double>(), 1e-14);
}

}  // namespace
}  // namespace steppe::ascent
