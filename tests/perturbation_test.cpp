// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <steppe/ascent/adaptive_scale.hpp>
#include <steppe/ascent/z_score_filter.hpp>
#include <steppe/perturbation.hpp>
#include <torch/types.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "errors.hpp"

namespace steppe {
namespace {

TEST(Perturbation, WeightsAreMovedInsideTheScopeAndExactlyBackAfterIt) {
  torch::manual_seed(1);
  const std::vector<at::Tensor> params = {torch::randn({5, 3}), torch::randn({4})};
  const std::vector<at::Tensor> gradients = {torch::randn({5, 3}), torch::randn({4})};
  const std::vector<at::Tensor> before = {params[0].clone(), params[1].clone()};
  const void* address = params[0].data_ptr();
  {
    Perturbation at(params, gradients, 0.25);
    const double norm = std::sqrt(gradients[0].square().sum().item<double>() + gradients[1].square().sum().item<double>());
    for (size_t i = 0; i < 2; ++i)
      EXPECT_TRUE(at::allclose(params[i], before[i] + gradients[i] * (0.25 / norm), 1e-6, 1e-7));
    EXPECT_NEAR(at.result().perturbation_norm.item<double>(), 0.25, 1e-6);
  }
  EXPECT_TRUE(params[0].equal(before[0]) && params[1].equal(before[1]));
  EXPECT_EQ(params[0].data_ptr(), address);
}

TEST(Perturbation, RestoresNegativeZeroInfinityAndNaNBitForBit) {
  for (const auto dtype : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
    const double inf = std::numeric_limits<double>::infinity();
    const at::Tensor w = torch::tensor({-0.0, inf, -inf, std::nan(""), 1.0, 1e-7}, at::kDouble).to(dtype);
    const at::Tensor before = w.clone();
    { const Perturbation at({w}, {torch::ones({6}).to(dtype)}, 0.5); }
    EXPECT_EQ(std::memcmp(w.data_ptr(), before.data_ptr(), w.nbytes()), 0) << dtype;
  }
}

TEST(Perturbation, TakesAnyAscent) {
  const at::Tensor w = torch::zeros({2, 4}, at::kDouble);
  const at::Tensor g = torch::tensor({{1.0, 2.0, 3.0, 40.0}, {1.0, 2.0, 3.0, 2.0}}, at::kDouble);
  const Perturbation at({w}, {g}, 1.0, ascent::ZScoreFilter().percentile(0.5));
  EXPECT_EQ((w != 0).sum().item<int64_t>(), 3);  // 40 and both ones; the twos tie with the threshold
  EXPECT_GT(w[0][3].item<double>(), 0.99);
}

TEST(Perturbation, UndefinedGradientsAreLeftAlone) {
  const at::Tensor a = torch::ones({3}), b = torch::ones({3});
  const Perturbation at({a, b}, {at::Tensor(), torch::ones({3})}, 1.0);
  EXPECT_TRUE(a.equal(torch::ones({3})));
  EXPECT_FALSE(b.equal(torch::ones({3})));
}

TEST(Perturbation, ParametersThatShareMemoryComeBackExactly) {
  const at::Tensor storage = torch::rand({6});
  const at::Tensor before = storage.clone();
  {
    const Perturbation at({storage.slice(0, 0, 4), storage.slice(0, 2, 6)}, {torch::ones({4}), torch::ones({4})}, 0.1);
    EXPECT_FALSE(storage.equal(before));
  }
  EXPECT_TRUE(storage.equal(before));
}

TEST(Perturbation, ParametersThatShareMemoryMoveAsByTheDefinition) {
  torch::manual_seed(1);
  const at::Tensor storage = torch::rand({3, 40000}) + 1;
  const at::Tensor before = storage.clone();
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  std::vector<at::Tensor> moved;
  for (const bool fused : {true, false}) {
    ascent::AdaptiveScale scale;
    AscentGroup group;
    group.params = {storage.slice(0, 0, 2), storage.slice(0, 1, 3)};
    group.gradients = {torch::full({2, 40000}, 0.5), torch::full({2, 40000}, 0.25)};
    group.direction = direction_of(scale);
    group.rho = 5.0;
    group.fused = fused;
    const Perturbation at({group});
    moved.push_back(storage.clone());
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(moved[0].equal(moved[1]));
  EXPECT_FALSE(moved[0].equal(before));
  EXPECT_TRUE(storage.equal(before));
}

TEST(Perturbation, NestsOverTheSameParameters) {
  const at::Tensor w = torch::ones({50});
  {
    const Perturbation outer({w}, {torch::ones({50})}, 1.0);
    const at::Tensor outside = w.clone();
    { const Perturbation inner({w}, {torch::ones({50})}, 1.0); }
    EXPECT_TRUE(w.equal(outside));
  }
  EXPECT_TRUE(w.equal(torch::ones({50})));
}

TEST(Perturbation, ItsMemoryServesOneAtATime) {
  const at::Tensor w = torch::ones({3}), before = w.clone();
  AscentGroup group;
  group.params = {w};
  group.gradients = {torch::ones({3})};
  group.rho = 0.5;
  const auto memory = std::make_shared<PerturbationMemory>();
  {
    const Perturbation at({group}, memory);
    const at::Tensor moved = w.clone();
    EXPECT_NE(message_of([&] { const Perturbation again({group}, memory); }).find("one Perturbation at a time"), std::string::npos);
    EXPECT_TRUE(w.equal(moved));
  }
  EXPECT_TRUE(w.equal(before));
  auto restored = std::make_unique<Perturbation>(std::vector<AscentGroup>{group}, memory);
  restored->restore();
  const Perturbation later({group}, memory);
  restored.reset();
  EXPECT_FALSE(w.equal(before));
}

TEST(Perturbation, OneGradientOfTwoParametersCannotBeSpare) {
  AscentGroup group;
  group.params = {torch::ones({3}), torch::ones({3})};
  group.gradients = {torch::ones({3}), at::Tensor()};
  group.gradients[1] = group.gradients[0];
  group.spare = {true, true};
  group.rho = 0.5;
  EXPECT_NE(message_of([&] { const Perturbation at({group}); }).find("marked spare"), std::string::npos);
  EXPECT_TRUE(group.params[0].eq(1).all().item<bool>());
}

TEST(Perturbation, RestoresWhenTheAscentItselfThrows) {
  const at::Tensor w = torch::ones({2, 3}, at::kComplexFloat);
  const at::Tensor before = w.clone();
  EXPECT_ANY_THROW(Perturbation({w}, {w * 2}, 0.1, ascent::ZScoreFilter().z_score(ZScore::Robust)));
  EXPECT_TRUE(w.equal(before));
}

TEST(Perturbation, BadInputIsNamed) {
  const at::Tensor w = torch::ones({3});
  EXPECT_NE(message_of([&] { Perturbation({w}, {}, 0.1); }).find("1 parameters, 0 gradients"), std::string::npos);
  EXPECT_NE(message_of([&] { Perturbation({w, w}, {w, w}, 0.1); }).find("appears twice"), std::string::npos);
  EXPECT_NE(message_of([&] { Perturbation({w}, {w}, -0.1); }).find("got -0.1"), std::string::npos);
  EXPECT_NE(message_of([&] { Perturbation({w}, {torch::ones({4})}, 0.1); }).find("does not fit"), std::string::npos);
  EXPECT_NE(message_of([&] { Perturbation({w}, {w}, 0.1, ascent::ZScoreFilter().percentile(1.0)); }).find("[0, 1), got 1"),
            std::string::npos);
}

}  // namespace
}  // namespace steppe
