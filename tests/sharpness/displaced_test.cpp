// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/sharpness/displaced.hpp>
#include <torch/types.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace steppe::sharpness {
namespace {

TEST(Displaced, MovesFromTheSavedWeightsAndBackBitForBit) {
  const at::Tensor w = torch::tensor({-0.0, std::numeric_limits<double>::infinity(), std::nan(""), 0.1}, at::kDouble);
  const at::Tensor before = w.clone();
  const void* address = w.data_ptr();
  {
    Displaced weights({w});
    weights.move_to(2.0, {torch::ones({4}, at::kDouble)});
    weights.move_to(-1.0, {torch::ones({4}, at::kDouble)});
    EXPECT_EQ(w[3].item<double>(), 0.1 - 1.0);
    weights.move({1.0, 0.5}, {{torch::ones({4}, at::kDouble)}, {at::Tensor()}});
    EXPECT_EQ(w[3].item<double>(), 0.1 + 1.0);
  }
  EXPECT_EQ(std::memcmp(w.data_ptr(), before.data_ptr(), w.nbytes()), 0);
  EXPECT_EQ(w.data_ptr(), address);
}

TEST(Displaced, GraphsRecordedBeforeStayValid) {
  const at::Tensor w = torch::full({2}, 3.0, at::kDouble).requires_grad_(true);
  const at::Tensor loss = w.square().sum();
  {
    Displaced weights({w});
    weights.move_to(1.0, {torch::ones({2}, at::kDouble)});
  }
  loss.backward();
  EXPECT_TRUE(w.grad().equal(torch::full({2}, 6.0, at::kDouble)));
}

}  // namespace
}  // namespace steppe::sharpness
