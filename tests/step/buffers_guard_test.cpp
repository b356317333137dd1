// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/step/buffers_guard.hpp>
#include <torch/types.h>

#include <stdexcept>

namespace steppe::step {
namespace {

TEST(BuffersGuard, PutsBuffersBackInPlaceAtTheEndOfTheScope) {
  const at::Tensor mean = torch::rand({3}), count = torch::zeros({}, at::kLong);
  const at::Tensor before = mean.clone();
  const void* address = mean.data_ptr();
  {
    const BuffersGuard guard({mean, count});
    mean.mul_(2);
    count.add_(1);
  }
  EXPECT_TRUE(mean.equal(before));
  EXPECT_EQ(count.item<int64_t>(), 0);
  EXPECT_EQ(mean.data_ptr(), address);
}

TEST(BuffersGuard, PutsBuffersBackWhenAnExceptionPasses) {
  const at::Tensor mean = torch::zeros({3});
  try {
    const BuffersGuard guard({mean});
    mean.add_(1);
    throw std::runtime_error("on purpose");
  } catch (const std::runtime_error&) {
  }
  EXPECT_TRUE(mean.equal(torch::zeros({3})));
}

TEST(BuffersGuard, DismissedItLeavesThemAlone) {
  const at::Tensor mean = torch::zeros({3});
  {
    BuffersGuard guard({mean});
    mean.add_(1);
    guard.dismiss();
  }
  EXPECT_TRUE(mean.equal(torch::ones({3})));
}

}  // namespace
}  // namespace steppe::step
