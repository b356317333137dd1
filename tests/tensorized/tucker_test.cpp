// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/tucker.hpp>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "random_tensors.hpp"

namespace steppe::tensorized {
namespace {

/// sqrt(sum over modes of the discarded squared singular values).
double bound(const at::Tensor& tensor, const std::vector<int64_t>& ranks) {
  double sum = 0.0;
  for (size_t k = 0; k < ranks.size(); ++k) {
    const at::Tensor s = at::linalg_svdvals(unfold(tensor, static_cast<int64_t>(k)));
    sum += s.slice(0, ranks[k]).square().sum().item<double>();
  }
  return std::sqrt(sum);
}

TEST(Unfolding, HasTheFibresOfTheModeAsColumns) {
  const at::Tensor tensor = torch::arange(24).view({2, 3, 4});
  const at::Tensor unfolded = unfold(tensor, 1);
  EXPECT_EQ(unfolded.sizes(), (std::vector<int64_t>{3, 8}));
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t k = 0; k < 4; ++k) EXPECT_TRUE(unfolded.select(1, i * 4 + k).equal(tensor.select(0, i).select(1, k)));
}

TEST(Unfolding, ItsLeadingVectorsAreThoseOfTheSingularValueDecomposition) {
  for (const auto& shape : {std::vector<int64_t>{4, 30}, std::vector<int64_t>{7, 3}}) {
    const at::Tensor matrix = random(shape);
    const at::Tensor u = std::get<0>(at::linalg_svd(matrix, false)).slice(1, 0, 3);
    const at::Tensor ours = leading_left_vectors(matrix, 3);
    EXPECT_LT(frobenius(at::matmul(u, u.t()) - at::matmul(ours, ours.t())), 1e-12);
  }
}

TEST(Tucker, RebuildsATensorAtFullRank) {
  for (const auto& shape : {std::vector<int64_t>{5}, std::vector<int64_t>{4, 3}, std::vector<int64_t>{4, 3, 5},
                            std::vector<int64_t>{2, 3, 1, 4}, std::vector<int64_t>{20, 2, 3}}) {
    const at::Tensor tensor = random(shape);
    std::vector<int64_t> ranks;
    for (const int64_t d : shape) ranks.push_back(std::min(d, tensor.numel() / d));
    EXPECT_LT(distance(tucker(tensor, ranks).full(), tensor), 1e-13) << at::IntArrayRef(shape);
  }
}

TEST(Tucker, FindsTheRanksThatATensorHas) {
  const TuckerTensor made{random({2, 3, 2}), {random({6, 2}, 2), random({5, 3}, 3), random({7, 2}, 4)}, {}};
  const at::Tensor tensor = made.full();
  const TuckerTensor found = tucker(tensor, {2, 3, 2});
  EXPECT_LT(distance(found.full(), tensor), 1e-13);
  EXPECT_EQ(found.core.sizes(), (std::vector<int64_t>{2, 3, 2}));
  EXPECT_EQ(found.factors[1].sizes(), (std::vector<int64_t>{5, 3}));
  EXPECT_EQ(found.sweeps, 0);
  for (const at::Tensor& factor : found.factors)
    EXPECT_LT(frobenius(at::matmul(factor.t(), factor) - at::eye(factor.size(1), at::kDouble)), 1e-13);
}

TEST(Tucker, ItsErrorIsNoLargerThanTheoryAndSweepsLowerIt) {
  const at::Tensor tensor = random({6, 5, 7});
  for (const auto& ranks :
       {std::vector<int64_t>{2, 2, 2}, std::vector<int64_t>{4, 3, 5}, std::vector<int64_t>{4, 4, 2}}) {
    const double start = frobenius(tucker(tensor, ranks, TuckerOptions().sweeps(0)).full() - tensor);
    const TuckerTensor swept = tucker(tensor, ranks);
    const double end = frobenius(swept.full() - tensor);
    EXPECT_LE(start, bound(tensor, ranks));
    EXPECT_GE(start * std::sqrt(3.0),
              bound(tensor, ranks));  // no rank-r tensor is nearer than the largest discarded part
    EXPECT_LT(end, start);
    EXPECT_GT(swept.sweeps, 0);
  }
}

TEST(Tucker, SweepsGoOnUntilOneGainsTooLittle) {
  const at::Tensor tensor = random({6, 5, 7});
  const auto swept = [&](double tolerance) {
    return tucker(tensor, {2, 2, 2}, TuckerOptions().sweeps(500).tolerance(tolerance));
  };
  EXPECT_EQ(swept(1.0).sweeps, 1);
  const TuckerTensor loose = swept(1e-4), tight = swept(1e-12);
  EXPECT_GT(loose.sweeps, 1);
  EXPECT_GT(tight.sweeps, loose.sweeps);
  EXPECT_LT(tight.sweeps, 500);
  EXPECT_LT(frobenius(tight.full() - tensor), frobenius(loose.full() - tensor));
  EXPECT_EQ(tucker(tensor, {2, 2, 2}, TuckerOptions().sweeps(3).tolerance(0.0)).sweeps, 3);
}

TEST(Tucker, ModesCanBeLeftAlone) {
  const at::Tensor tensor = random({6, 3, 3, 5});
  const TuckerTensor found = tucker(tensor, {4, 5}, TuckerOptions().modes({0, 3}));
  EXPECT_EQ(found.core.sizes(), (std::vector<int64_t>{4, 3, 3, 5}));
  EXPECT_EQ(found.full().sizes(), tensor.sizes());
  EXPECT_LT(distance(tucker(tensor, {5, 6}, TuckerOptions().modes({3, 0})).full(), tensor), 1e-13);
}

TEST(Tucker, RanksBeyondWhatATensorOrCoreNeedsGiveTheSameTensorWithAWarning) {
  const at::Tensor tensor = random({16, 32, 3, 3});
  TuckerTensor found;
  expect_warning(
      [&] {
        found = tucker(tensor, {5, 10, 1, 1});
      },
      "Tucker ranks [5, 10, 1, 1] were requested for a tensor of shape [16, 32, 3, 3]; [5, 5, 1, 1] are enough");
  EXPECT_LT(distance(found.full(), tucker(tensor, {5, 5, 1, 1}).full()), 1e-14);
  expect_warning([&] { found = tucker(random({20, 2, 3}), {7, 9, 3}); }, "; [6, 2, 3] are enough");
  expect_warning([&] { found = tucker(random({10, 10, 10}), {5, 1, 1}); }, "; [1, 1, 1] are enough");
  EXPECT_EQ(found.core.numel(), 1);
  // Modes without a factor count in full.
  EXPECT_EQ(tucker(tensor, {5, 10}, TuckerOptions().modes({0, 1})).core.sizes(), (std::vector<int64_t>{5, 10, 3, 3}));
}

TEST(Tucker, KeepsTheTypeAndIsDifferentiable) {
  const at::Tensor tensor = random({4, 3, 5}).to(at::kFloat).requires_grad_();
  TuckerTensor found = tucker(tensor, {4, 3, 5});
  EXPECT_EQ(found.core.scalar_type(), at::kFloat);
  EXPECT_FALSE(found.core.requires_grad());
  EXPECT_LT(distance(found.full(), tensor), 1e-6);
  found.factors[0].requires_grad_();
  found.full().square().sum().backward();
  EXPECT_TRUE(found.factors[0].grad().defined());
}

TEST(Tucker, ImpossibleRanksModesAndTensorsAreNamed) {
  const at::Tensor tensor = random({4, 3, 5});
  expect_error([&] { tucker(tensor, {0, 3, 5}); }, "Tucker rank 0 of mode 0 must be at least 1");
  expect_error([&] { tucker(tensor, {2, 2}); }, "of 3 modes needs as many ranks, got [2, 2]");
  expect_error([&] { tucker(tensor, {2}, TuckerOptions().modes({3})); }, "no mode 3");
  expect_error(
      [&] {
        tucker(tensor, {2, 2}, TuckerOptions().modes({1, 1}));
      },
      "mode 1 of a Tucker decomposition is named twice");
  expect_error([&] { tucker(tensor, {2, 2, 2}, TuckerOptions().sweeps(-1)); }, "got -1");
  expect_error([&] { tucker(torch::zeros({2, 0}), {1, 1}); }, "no entries");
  expect_error([&] { tucker(torch::ones({2, 2}, at::kLong), {1, 1}); }, "a tensor of Long");
  expect_error([&] { tucker(torch::full({2, 2}, NAN), {1, 1}); }, "not finite");
}

}  // namespace
}  // namespace steppe::tensorized
