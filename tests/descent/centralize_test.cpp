// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/descent/centralize.hpp>
#include <torch/types.h>

#include <vector>

namespace steppe::descent {
namespace {

TEST(DescentCentralize, OffByDefaultAndCentralizesRowsWhenOn) {
  torch::manual_seed(1);
  const at::Tensor matrix = torch::randn({3, 4}), bias = torch::randn({3});
  std::vector<at::Tensor> final = {matrix.clone(), bias.clone()};
  Centralize()(final, {});
  EXPECT_TRUE(final[0].equal(matrix));
  Centralize().center_descent(true)(final, {});
  EXPECT_LT(final[0].sum(1).abs().max().item<float>(), 1e-6f);
  EXPECT_TRUE(final[1].equal(bias));
}

TEST(DescentCentralize, ConvOnlyLeavesMatricesAlone) {
  std::vector<at::Tensor> final = {torch::ones({3, 4}), torch::ones({2, 2, 2, 2})};
  Centralize().center_descent(true).conv_only(true)(final, {});
  EXPECT_TRUE(final[0].eq(1).all().item<bool>());
  EXPECT_FALSE(final[1].any().item<bool>());
}

TEST(DescentCentralize, SparseGradientsGiveAnError) {
  std::vector<at::Tensor> final = {torch::ones({3, 4}).to_sparse()};
  EXPECT_ANY_THROW(Centralize().center_descent(true)(final, {}));
}

}  // namespace
}  // namespace steppe::descent
