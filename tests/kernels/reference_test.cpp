// The definition against definitions: quantile masks, energies, medians, norms.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/kernels/reference.hpp>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace steppe::reference {
namespace {

/// |z| > t with z, mean, std and the interpolated quantile computed as the paper writes them, in float64.
at::Tensor mask_by_definition(const at::Tensor& gradient, double q) {
  const at::Tensor g = gradient.to(at::kDouble).flatten();
  const at::Tensor z = ((g - g.mean()) / (g.std(/*unbiased=*/true) + 1e-12)).abs();
  return (z > at::quantile(z, q)).view(gradient.sizes());
}

Recipe::Filter at_level(double level) {
  Recipe::Filter filter;
  filter.on = true;
  filter.level = level;
  return filter;
}

TEST(Reference, TailMaskEqualsTheQuantileDefinitionOnRandomTensors) {
  torch::manual_seed(1);
  for (const int64_t n : {3, 4, 7, 10, 19, 20, 21, 100, 1000, 4097}) {
    for (const double q : {0.0, 0.3, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99, 0.999}) {
      const at::Tensor g = torch::randn({n}, at::kDouble) + 0.1;
      EXPECT_TRUE(tail_mask(g, at_level(q)).equal(mask_by_definition(g, q))) << "n " << n << ", q " << q;
    }
  }
}

TEST(Reference, TailMaskEqualsTheQuantileDefinitionOnTies) {
  torch::manual_seed(2);
  for (int trial = 0; trial < 50; ++trial) {
    // Values on a grid with a mean that is exact, so that ties are ties for both.
    at::Tensor half = torch::randint(-4, 5, {128}, at::kDouble);
    const at::Tensor g = at::cat({half, -half});
    for (const double q : {0.25, 0.5, 0.75, 0.95})
      EXPECT_TRUE(tail_mask(g, at_level(q)).equal(mask_by_definition(g, q))) << "trial " << trial << ", q " << q;
  }
}

TEST(Reference, TailMaskIsEmptyOnConstants) {
  EXPECT_FALSE(tail_mask(torch::full({64}, 0.3), at_level(0.5)).any().item<bool>());
  EXPECT_FALSE(tail_mask(torch::zeros({64}), at_level(0.5)).any().item<bool>());
}

TEST(Reference, TailMaskKeepsTheExactCountBeyondTheOraclesCap) {
  // Distinct distances from the mean, so that the number kept is known: n - 1 - floor(q (n - 1)).
  const int64_t n = (int64_t{1} << 24) + 3;
  const at::Tensor g = torch::arange(n, at::kDouble).sub_(static_cast<double>(n - 1) / 2.0);
  const at::Tensor mask = tail_mask(g.abs().mul_(g.sign()).add_(g.sign() * 0.25).to(at::kDouble), at_level(0.95));
  const int64_t rank = static_cast<int64_t>(std::floor(0.95 * static_cast<double>(n - 1)));
  // Distances come in pairs (+d, -d): the threshold pair is cut or kept as a whole.
  const int64_t kept = mask.sum().item<int64_t>();
  EXPECT_LE(kept, n - 1 - rank);
  EXPECT_GE(kept, n - 3 - rank);
  const int64_t side = kept / 2;
  EXPECT_TRUE(mask.slice(0, 0, side).all().item<bool>());
  EXPECT_TRUE(mask.slice(0, n - side, n).all().item<bool>());
  EXPECT_FALSE(mask.slice(0, side, n - side).any().item<bool>());
}

TEST(Reference, TailMaskIsTheSameInEveryMemoryLayout) {
  torch::manual_seed(3);
  const at::Tensor g = torch::randn({4, 3, 5, 5});
  const at::Tensor mask = tail_mask(g, at_level(0.9));
  EXPECT_TRUE(mask.equal(tail_mask(g.contiguous(at::MemoryFormat::ChannelsLast), at_level(0.9))));
  EXPECT_TRUE(mask.equal(tail_mask(g.transpose(1, 2).contiguous().transpose(1, 2), at_level(0.9))));
}

TEST(Reference, DeviationRoundsTheMeanOnceToTheDtype) {
  torch::manual_seed(4);
  const at::Tensor g = torch::randn({1001});
  const auto* values = g.data_ptr<float>();
  double sum = 0.0;
  for (int64_t i = 0; i < g.numel(); ++i) sum += values[i];
  const float mean = static_cast<float>(sum / 1001.0);
  const at::Tensor distance = deviation(g, ZScore::Standard);
  for (int64_t i = 0; i < g.numel(); ++i) EXPECT_EQ(distance.data_ptr<float>()[i], std::fabs(values[i] - mean));
}

TEST(Reference, MiddleValueAveragesTheTwoInTheMiddle) {
  EXPECT_EQ(middle_value(torch::tensor({4.0, 1.0, 3.0}, at::kDouble)).item<double>(), 3.0);
  EXPECT_EQ(middle_value(torch::tensor({4.0, 1.0, 3.0, 10.0}, at::kDouble)).item<double>(), 3.5);
}

TEST(Reference, RobustScoreUsesTheMedianAbsoluteDeviation) {
  const at::Tensor x = torch::tensor({1.0, 2.0, 3.0, 4.0, 100.0}, at::kDouble);
  const at::Tensor z = absolute_z_score(x, ZScore::Robust);
  EXPECT_NEAR(z[4].item<double>(), 97.0 / 1.4826, 1e-9);
  EXPECT_EQ(z[2].item<double>(), 0.0);
}

TEST(Reference, EnergyMaskIsTheSmallestSetThatReachesTheShare) {
  // Energies 16, 9, 4, 1 of 30.
  const at::Tensor x = torch::tensor({1.0, -4.0, 2.0, 3.0}, at::kDouble);
  const auto kept = [&](double share) { return energy_mask(x, share).sum().item<int64_t>(); };
  EXPECT_EQ(kept(0.5), 1);
  EXPECT_EQ(kept(16.0 / 30.0), 1);
  EXPECT_EQ(kept(0.6), 2);
  EXPECT_EQ(kept(0.84), 3);
  EXPECT_EQ(kept(0.97), 4);
  EXPECT_EQ(kept(1.0), 4);
  EXPECT_TRUE(energy_mask(x, 0.6).equal(torch::tensor({false, true, false, true})));
}

TEST(Reference, EnergyMaskKeepsTiesWithTheSmallestKept) {
  const at::Tensor x = torch::tensor({2.0, -2.0, 2.0, 1.0}, at::kDouble);
  EXPECT_TRUE(energy_mask(x, 0.5).equal(torch::tensor({true, true, true, false})));
}

TEST(Reference, CentralizeSubtractsTheMeanOfEveryOutputRow) {
  const at::Tensor g = torch::tensor({{1.0, 2.0, 6.0}, {-1.0, 0.0, 1.0}}, at::kDouble);
  EXPECT_TRUE(centralize(g).equal(torch::tensor({{-2.0, -1.0, 3.0}, {-1.0, 0.0, 1.0}}, at::kDouble)));
  torch::manual_seed(5);
  const at::Tensor conv = torch::randn({3, 2, 4, 4}, at::kDouble);
  EXPECT_LT(centralize(conv).flatten(1).sum(1).abs().max().item<double>(), 1e-13);
}

TEST(Reference, NumbersOfTheHostStandBesideATensorInTheirOrder) {
  const at::Tensor like = torch::zeros({7}, at::kDouble);
  for (const std::vector<double>& values : std::vector<std::vector<double>>{
           {0.5}, {3.0, 3.0, 3.0}, {1.0, 1.0, 2.0, 0.0, 0.0, 1e300, 1.0}, {1.0, 2.0, 3.0}}) {
    const at::Tensor beside_it = beside(like, values);
    EXPECT_EQ(beside_it.options().dtype(), like.options().dtype());
    EXPECT_TRUE(beside_it.equal(torch::tensor(values, at::kDouble))) << beside_it;
  }
}

TEST(Reference, NormsAreAccumulatedInDouble) {
  // 2^24 ones and one more: float32 accumulation would lose the last.
  const at::Tensor g = torch::ones({(1 << 24) + 1});
  EXPECT_EQ(vector_norm(g, 2.0).item<double>(), std::sqrt(std::pow(2.0, 24) + 1.0));
  const at::Tensor large = torch::full({4}, 1e30f);
  EXPECT_NEAR(vector_norm(large, 2.0).item<double>() / 2e30, 1.0, 1e-6);
}

AscentTask task_of(const at::Tensor& w, const at::Tensor& g, const Recipe& recipe, double rho) {
  AscentTask task;
  task.param = task.destination = w;
  task.direction = g;
  task.recipe = recipe;
  task.rho = rho;
  return task;
}

AscentResult moved_by(std::vector<AscentTask> tasks) { return ascend(tasks); }

TEST(Reference, TwoElementsAreNeverFiltered) {
  Recipe recipe;
  recipe.filter = at_level(0.5);
  const at::Tensor w = torch::zeros({1, 2}, at::kDouble), g = torch::tensor({{3.0, 4.0}}, at::kDouble);
  moved_by({task_of(w, g, recipe, 1.0)});
  EXPECT_TRUE(at::allclose(w, g / 5.0, 0, 1e-15));
}

TEST(Reference, GlobalThresholdMasksOverAllTensorsTogether) {
  torch::manual_seed(6);
  Recipe recipe;
  recipe.filter = at_level(0.9);
  recipe.filter.threshold = Threshold::Global;
  const at::Tensor a = torch::randn({6, 7}, at::kDouble), b = torch::randn({5, 4}, at::kDouble) * 3 + 1;
  const at::Tensor wa = torch::zeros_like(a), wb = torch::zeros_like(b);
  moved_by({task_of(wa, a, recipe, 1.0), task_of(wb, b, recipe, 1.0)});
  const auto score = [](const at::Tensor& g) { return ((g - g.mean()) / (g.std(true) + 1e-12)).abs(); };
  const at::Tensor joint = at::cat({score(a).flatten(), score(b).flatten()});
  const at::Tensor threshold = at::quantile(joint, 0.9);
  EXPECT_TRUE((wa != 0).equal(score(a) > threshold));
  EXPECT_TRUE((wb != 0).equal(score(b) > threshold));
}

TEST(Reference, AscentReportsWhatItDid) {
  torch::manual_seed(7);
  Recipe filtered;
  filtered.filter = at_level(0.75);
  const at::Tensor g1 = torch::randn({4, 5}, at::kDouble), g2 = torch::randn({3}, at::kDouble);
  const at::Tensor w1 = torch::zeros_like(g1), w2 = torch::zeros_like(g2);
  const AscentResult seen = moved_by({task_of(w1, g1, filtered, 0.5), task_of(w2, g2, filtered, 0.5)});
  const double norm = std::sqrt(g1.square().sum().item<double>() + g2.square().sum().item<double>());
  EXPECT_NEAR(seen.gradient_norm.item<double>(), norm, 1e-12);
  EXPECT_NEAR(seen.perturbation_norm.item<double>(), 0.5, 1e-12);
  EXPECT_NEAR(seen.layer_perturbation_norm[0].item<double>(), w1.norm().item<double>(), 1e-12);
  EXPECT_NEAR(seen.layer_perturbation_norm[1].item<double>(), w2.norm().item<double>(), 1e-12);
  EXPECT_EQ(seen.kept_share.item<double>(), 5.0 / 20.0);
  EXPECT_EQ(seen.layer_kept_share[1].item<double>(), 1.0);
  EXPECT_TRUE(seen.finite.item<bool>());
}

TEST(Reference, PNormsGiveTheMaximizerOnTheirBall) {
  torch::manual_seed(8);
  const at::Tensor g = torch::randn({50}, at::kDouble);
  for (const double p : {1.5, 2.0, 3.0, 8.0}) {
    Recipe recipe;
    recipe.p = p;
    const at::Tensor w = torch::zeros_like(g);
    moved_by({task_of(w, g, recipe, 0.3)});
    const double q = p / (p - 1.0);
    EXPECT_NEAR(w.abs().pow(p).sum().pow(1.0 / p).item<double>(), 0.3, 1e-12) << "p " << p;
    // Hoelder's bound is met: <g, e> = rho |g|_q.
    EXPECT_NEAR(g.dot(w).item<double>(), 0.3 * g.abs().pow(q).sum().pow(1.0 / q).item<double>(), 1e-10) << "p " << p;
  }
  Recipe sign;
  sign.p = std::numeric_limits<double>::infinity();
  const at::Tensor w = torch::zeros_like(g);
  moved_by({task_of(w, g, sign, 0.3)});
  EXPECT_TRUE(w.equal(g.sign() * 0.3));
}

}  // namespace
}  // namespace steppe::reference
