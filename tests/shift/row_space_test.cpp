// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/shift/row_space.hpp>
#include <torch/types.h>

#include <cmath>
#include <string>

#include "../errors.hpp"

namespace steppe::shift {
namespace {

TEST(RowSpace, ProjectsAsThePseudoInverseDoes) {
  torch::manual_seed(1);
  const at::Tensor v = torch::randn({6, 3}, at::kDouble);
  for (const int64_t rows : {2, 6, 20}) {
    const at::Tensor a = torch::randn({rows, 3}, at::kDouble).mm(torch::randn({3, 6}, at::kDouble));
    RowSpace space;
    space.add(a.slice(0, 0, 1));
    space.add(a.slice(0, 1, rows));
    const auto [solution, rank] = space.project(v, 0.0, space.rounding());
    EXPECT_EQ(rank, std::min<int64_t>(rows, 3));
    EXPECT_EQ(space.rows(), rows);
    const at::Tensor expected = torch::linalg_pinv(a, 1e-12).mm(a.mm(v));
    EXPECT_LT((solution - expected).abs().max().item<double>(), 1e-10) << rows;
    EXPECT_NEAR(space.mean_square_of(v), a.mm(v).square().mean().item<double>(), 1e-10);
  }
}

TEST(RowSpace, RidgeIsTheDualFormOfThePaper) {
  torch::manual_seed(2);
  const at::Tensor a = torch::randn({4, 7}, at::kDouble), v = torch::randn({7, 2}, at::kDouble);
  RowSpace space;
  space.add(a);
  const at::Tensor dual = a.t().mm(torch::linalg_solve(a.mm(a.t()) + 0.3 * torch::eye(4, at::kDouble), a.mm(v)));
  EXPECT_LT((space.project(v, 0.3, 1e-14).first - dual).abs().max().item<double>(), 1e-12);
}

TEST(RowSpace, OfZerosHasRankZero) {
  RowSpace space;
  space.add(torch::zeros({3, 2}));
  const auto [solution, rank] = space.project(torch::ones({2, 1}, at::kDouble), 0.0, space.rounding());
  EXPECT_EQ(rank, 0);
  EXPECT_TRUE(solution.equal(torch::zeros({2, 1}, at::kDouble)));
}

TEST(RowSpace, ErrorsNameWhatIsWrong) {
  RowSpace space;
  EXPECT_NE(message_of([&] { space.add(torch::ones({3})); }).find("must be a matrix"), std::string::npos);
  space.add(torch::ones({2, 3}));
  EXPECT_NE(message_of([&] { space.add(torch::ones({2, 4})); }).find("as many features"), std::string::npos);
  EXPECT_NE(message_of([&] { space.add(torch::full({2, 3}, std::nan(""))); }).find("not finite"), std::string::npos);
  EXPECT_EQ(space.rows(), 2);
}

}  // namespace
}  // namespace steppe::shift
