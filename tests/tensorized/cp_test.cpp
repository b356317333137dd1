// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/cp.hpp>
#include <torch/types.h>

#include <cmath>
#include <vector>

#include "random_tensors.hpp"

namespace steppe::tensorized {
namespace {

TEST(CP, IsTheSumOfOuterProducts) {
  const CPTensor parts{{random({2, 3}), random({4, 3}, 2), random({3, 3}, 3), random({2, 3}, 4)}};
  const at::Tensor sum = at::einsum("ar,br,cr,dr->abcd", parts.factors);
  EXPECT_LT(distance(parts.full(), sum), 1e-14);
  EXPECT_LT(distance(CPTensor{{parts.factors[0]}}.full(), parts.factors[0].sum(1)), 1e-14);
  EXPECT_LT(
      distance(khatri_rao(parts.factors, 1),
               at::einsum("ar,cr,dr->acdr", {parts.factors[0], parts.factors[2], parts.factors[3]}).reshape({-1, 3})),
      1e-14);
}

TEST(CP, RebuildsATensorAtFullRank) {
  for (const auto& shape : {std::vector<int64_t>{5}, std::vector<int64_t>{4, 3}, std::vector<int64_t>{3, 5, 2},
                            std::vector<int64_t>{2, 3, 4, 3}}) {
    const at::Tensor tensor = random(shape);
    int64_t largest = 1;
    for (const int64_t d : shape) largest = std::max(largest, d);
    const CPTensor found = cp(tensor, tensor.numel() / largest);
    EXPECT_LT(distance(found.full(), tensor), 1e-14) << at::IntArrayRef(shape);
    EXPECT_EQ(found.sweeps, 0);
  }
}

TEST(CP, FindsTheRankThatATensorHas) {
  for (const int64_t rank : {1, 3, 5}) {
    const CPTensor made{{random({6, rank}), random({5, rank}, 2), random({7, rank}, 3)}};
    const CPTensor found = cp(made.full(), rank, CPOptions().sweeps(2000).tolerance(1e-14));
    EXPECT_LT(distance(found.full(), made.full()), 1e-8) << rank;
    EXPECT_GT(found.sweeps, 0);
  }
}

TEST(CP, OfAMatrixIsTheTruncatedSingularValueDecomposition) {
  const at::Tensor matrix = random({7, 5});
  const double error = std::pow(frobenius(cp(matrix, 2).full() - matrix), 2);
  EXPECT_NEAR(error / discarded(matrix, 1, 2), 1.0, 1e-12);
}

TEST(CP, SweepsNeverRaiseTheErrorAndColumnsShareTheirNorms) {
  const at::Tensor tensor = random({4, 5, 6});
  double before = frobenius(tensor);
  for (int64_t sweeps = 0; sweeps < 8; ++sweeps) {
    const CPTensor found = cp(tensor, 7, CPOptions().sweeps(sweeps).tolerance(0.0));
    EXPECT_EQ(found.sweeps, sweeps);
    const double error = frobenius(tensor - found.full());
    EXPECT_LT(error, before);
    before = error;
    const at::Tensor norms = found.factors[0].norm(2, {0});
    for (const at::Tensor& factor : found.factors) EXPECT_LT(distance(factor.norm(2, {0}), norms), 1e-12);
  }
}

TEST(CP, GivesTheSameAtEveryCall) {
  const at::Tensor tensor = random({3, 4, 5});
  torch::manual_seed(5);
  const CPTensor first = cp(tensor, 6);
  const at::Tensor drawn = torch::rand({1});
  const CPTensor second = cp(tensor, 6);
  for (size_t k = 0; k < 3; ++k) EXPECT_TRUE(first.factors[k].equal(second.factors[k]));
  torch::manual_seed(5);
  EXPECT_TRUE(torch::rand({1}).equal(drawn));  // the default generator was left alone
  EXPECT_FALSE(cp(tensor, 6, CPOptions().seed(1)).factors[0].equal(first.factors[0]));
}

TEST(CP, ABetterStartIsFoundAmongSeveral) {
  // From the higher-order SVD, ALS ends at a local minimum of this tensor of rank 4.
  const CPTensor made{{random({6, 4}, 17), random({5, 4}, 117), random({7, 4}, 217)}};
  const at::Tensor tensor = made.full();
  const CPOptions options = CPOptions().sweeps(200);
  const CPTensor one = cp(tensor, 4, options), best = cp(tensor, 4, CPOptions(options).starts(6));
  EXPECT_GT(one.error, 1e-2);
  EXPECT_LT(best.error, 1e-6);
  EXPECT_LT(cp(tensor, 4, CPOptions(options).seed(3)).error, 1e-6);  // a seed counts where R <= every mode, too
  const at::Tensor noise = random({4, 5, 6});
  double nearest = 1.0;
  for (int64_t starts = 1; starts <= 5; ++starts) {
    const double error = cp(noise, 5, CPOptions().sweeps(20).starts(starts)).error;
    EXPECT_LE(error, nearest);
    nearest = error;
  }
}

TEST(CP, ItsErrorIsThatOfTheFactors) {
  const CPTensor made{{random({6, 3}), random({5, 3}, 2), random({7, 3}, 3)}};
  for (const double noise : {1.0, 1e-4, 1e-9, 0.0}) {
    const at::Tensor tensor = made.full() + random({6, 5, 7}, 4) * noise;
    const CPTensor found = cp(tensor, 3, CPOptions().sweeps(500).tolerance(1e-14));
    // Rounding of the column's norms alone comes between the two.
    EXPECT_NEAR(found.error, distance(found.full(), tensor), 1e-14);
    EXPECT_LT(found.error, noise + 1e-8);
  }
}

TEST(CP, SweepsEndWhereTheyGainTooLittleAndNotBefore) {
  // Errors of 1e-6 and less, which Gram matrices cannot distinguish.
  const CPTensor made{{random({6, 3}), random({5, 3}, 2), random({7, 3}, 3)}};
  const at::Tensor tensor = made.full() + random({6, 5, 7}, 4) * 1e-6;
  const double tolerance = 1e-10;
  const CPTensor found = cp(tensor, 3, CPOptions().sweeps(1000).tolerance(tolerance));
  ASSERT_LT(found.sweeps, 1000);
  const auto after = [&](int64_t sweeps) { return cp(tensor, 3, CPOptions().sweeps(sweeps).tolerance(0.0)).error; };
  EXPECT_LE(after(found.sweeps - 1) - found.error, tolerance);
  EXPECT_GT(after(found.sweeps - 2) - after(found.sweeps - 1), tolerance);
}

TEST(FactorFit, IsTheLeastSquaresSolutionAndKeepsWhatTheOthersDoNotSee) {
  at::Tensor k = random({9, 3});
  const at::Tensor t = random({4, 9}, 2), before = random({4, 3}, 3);
  const auto fitted = [&] { return detail::FactorFit{at::matmul(t, k), at::matmul(k.t(), k)}.from(before); };
  EXPECT_LT(distance(fitted(), at::matmul(t, at::linalg_pinv(k.t()))), 1e-13);
  k.select(1, 1).zero_();
  const at::Tensor after = fitted(), seen = at::matmul(t, at::linalg_pinv(k.t()));
  EXPECT_TRUE(after.select(1, 1).equal(before.select(1, 1)));
  EXPECT_LT(distance(after.select(1, 2), seen.select(1, 2)), 1e-13);
}

TEST(CP, OfZerosIsZerosAndOfALargerRankThanNeededIsExact) {
  for (const at::Tensor& factor : cp(torch::zeros({3, 4, 2}), 2).factors) EXPECT_TRUE(factor.eq(0).all().item<bool>());
  const at::Tensor tensor = random({4, 3, 5});
  CPTensor found;
  expect_warning([&] { found = cp(tensor, 13); },
                 "CP ranks [13] were requested for a tensor of shape [4, 3, 5]; [12] are");
  EXPECT_EQ(found.factors[0].size(1), 12);
  EXPECT_LT(distance(found.full(), tensor), 1e-14);
}

TEST(CP, ImpossibleRanksAreNamed) {
  const at::Tensor tensor = random({4, 3, 5});
  expect_error([&] { cp(tensor, 0); }, "CP rank 0 must be at least 1");
  expect_error([&] { cp(tensor, 2, CPOptions().starts(0)); }, "at least one start, got 0");
  expect_error([&] { cp(tensor, 2, CPOptions().tolerance(-1.0)); }, "got 100 and -1");
}

}  // namespace
}  // namespace steppe::tensorized
