// SPDX-License-Identifier: MIT
#include "imputation.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "fit.hpp"
#include "low_rank_tensor.hpp"

namespace completion {
namespace {

TEST(Imputation, CompletesANoiseFreeTensorOfItsRank) {
  const Completion completion = impute(low_rank_problem(), {{2, 2, 2}, 3000, 1e-8}, always);
  EXPECT_TRUE(completion.finished);
  EXPECT_GT(completion.last().training, 0.999);
  EXPECT_GT(completion.last().held_out, 0.999);
  EXPECT_LT(completion.last().iteration, 3000);
}

TEST(Imputation, NeverRaisesTheErrorOnWhatItTrainsOn) {
  Problem problem = low_rank_problem();
  problem.values = problem.values + at::randn(problem.values.sizes(), problem.values.options());
  const Completion completion = impute(problem, {{3, 2, 3}, 100, 0.0}, always);
  for (size_t i = 1; i < completion.moments.size(); ++i)
    EXPECT_LE(completion.moments[i].loss, completion.moments[i - 1].loss * (1.0 + 1e-12)) << i;
}

TEST(Imputation, WithNothingMissingItIsTheBestApproximationOfAMatrix) {
  // Two modes: the truncated singular value decomposition, whose squared error is the sum of the squares left out.
  Problem problem{at::randn({9, 6}, at::kDouble), draw_split({9, 6}, 0.0, 0.0, 0)};
  const Completion completion = impute(problem, {{2, 2}, 50, 1e-12}, always);
  const at::Tensor values = std::get<1>(problem.values.svd());
  EXPECT_NEAR(completion.last().loss * 54.0, values.slice(0, 2).square().sum().item<double>(), 1e-10);
}

TEST(Imputation, ItsFormHasTheRankAskedFor) {
  const Completion completion = impute(low_rank_problem(), {{1, 1, 1}, 5, 0.0}, always);
  const at::Tensor values = std::get<1>(completion.fitted.flatten(1).svd());
  EXPECT_LT(values[1].item<double>(), 1e-10 * values[0].item<double>());
}

TEST(Imputation, LooksAtNothingThatIsMissing) {
  Problem problem = low_rank_problem();
  const Completion once = impute(problem, {{2, 2, 2}, 20, 0.0}, always);
  problem.values = problem.values.masked_fill(problem.split.held_out, 1e6);
  const Completion again = impute(problem, {{2, 2, 2}, 20, 0.0}, always);
  EXPECT_TRUE(at::equal(once.fitted, again.fitted));
}

TEST(Imputation, TakesRanksThatTheOtherModesCannotFill) {
  const Completion completion =
      impute({at::randn({9, 2}, at::kDouble), draw_split({9, 2}, 0.0, 0.0, 0)}, {{8, 2}, 20, 1e-12}, always);
  EXPECT_NEAR(completion.last().training, 1.0, 1e-12);
}

TEST(Imputation, EndsWhenToldTo) {
  const Completion completion =
      impute(low_rank_problem(), {{2, 2, 2}, 50, 0.0}, [](int64_t sweep) { return sweep < 7; });
  EXPECT_FALSE(completion.finished);
  EXPECT_EQ(completion.last().iteration, 7);
}

}  // namespace
}  // namespace completion
