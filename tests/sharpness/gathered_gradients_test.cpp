// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/sharpness/gathered_gradients.hpp>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <vector>

namespace steppe::sharpness {
namespace {

TEST(GatheredGradients, AreAddedToTheirPartsOfTheSum) {
  const at::Tensor a = torch::ones({2, 3}).requires_grad_(true), unused = torch::ones({2}).requires_grad_(true);
  const at::Tensor half = torch::ones({2}, at::kHalf).requires_grad_(true);
  const at::Tensor table = torch::ones({3, 1}).requires_grad_(true);
  const at::Tensor filter = torch::ones({2, 2, 2, 2}).contiguous(at::MemoryFormat::ChannelsLast).requires_grad_(true);
  const std::vector<at::Tensor> params = {a, unused, half, table, filter};
  const at::Tensor sum = torch::full({6 + 2 + 2 + 3 + 16}, 10.0);
  const at::Tensor weights = torch::arange(16, at::kFloat).view({2, 2, 2, 2});
  {
    GatheredGradients gathered(params, sum);
    const at::Tensor rows = torch::embedding(table, torch::tensor({2, 0, 2}, at::kLong), -1, false, /*sparse=*/true);
    const at::Tensor loss = a.sum() * 2 + (half * torch::tensor({3, 4}, at::kHalf)).sum().to(at::kFloat) + rows.sum() +
                            (filter * weights).sum();
    torch::autograd::backward({loss}, {}, false, false, params);
    gathered.add_others();
  }
  EXPECT_TRUE(sum.slice(0, 0, 6).equal(torch::full({6}, 12.0)));
  EXPECT_TRUE(sum.slice(0, 6, 8).equal(torch::full({2}, 10.0)));
  EXPECT_TRUE(sum.slice(0, 8, 10).equal(torch::tensor({13.0, 14.0}, at::kFloat)));
  EXPECT_TRUE(sum.slice(0, 10, 13).equal(torch::tensor({11.0, 10.0, 12.0}, at::kFloat)));
  EXPECT_TRUE(sum.slice(0, 13, 29).equal(torch::arange(16, at::kFloat) + 10.0));
  for (const at::Tensor& param : params) EXPECT_FALSE(param.grad().defined());
}

}  // namespace
}  // namespace steppe::sharpness
