// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <torch/types.h>

#include <functional>
#include <stdexcept>
#include <string>

#include <steppe/step/buffers_guard.hpp>

#include "../allocated_bytes.hpp"
#include "../errors.hpp"

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

TEST(BuffersGuard, AnExpandedBufferOrOneThatOverlapsItselfDoesNotKeepTheOthersFromTheirPlace) {
  const at::Tensor row = torch::rand({1, 6}), windows = torch::rand({10}).unfold(0, 4, 1), mean = torch::zeros({3});
  const at::Tensor mask = row.expand({4, 6}), row_before = row.clone(), windows_before = windows.clone();
  {
    const BuffersGuard guard({mask, windows, at::Tensor(), mean});
    row.mul_(2);
    windows.select(0, 0).mul_(2);
    mean.add_(1);
  }
  EXPECT_TRUE(row.equal(row_before));
  EXPECT_TRUE(windows.equal(windows_before));
  EXPECT_TRUE(mean.equal(torch::zeros({3})));
}

TEST(BuffersGuard, ABufferThatCannotBeWrittenIsNamedAndTheOthersArePutBack) {
  const at::Tensor first = torch::zeros({3}), last = torch::zeros({3});
  const at::Tensor changed = torch::zeros({3});
  BuffersGuard guard({first, changed, last});
  first.add_(1);
  last.add_(1);
  changed.resize_({2});
  EXPECT_NE(message_of([&] { guard.restore(); }).find("one of shape [3] has become [2]"), std::string::npos);
  EXPECT_TRUE(first.equal(torch::zeros({3})));
  EXPECT_TRUE(last.equal(torch::zeros({3})));
}

// Module::to() gives a buffer another type under the same count of changes.
TEST(BuffersGuard, ALargeBufferThatBecameAnotherTypeIsCopiedAnew) {
  at::Tensor table = torch::zeros({1 << 17});
  KeptBuffers kept;
  { const BuffersGuard guard({table}, &kept); }
  table.set_data(torch::zeros({1 << 17}, at::kDouble));
  {
    const BuffersGuard guard({table}, &kept);
    table.fill_(3);
  }
  EXPECT_EQ(table.scalar_type(), at::kDouble);
  EXPECT_EQ(table.abs().sum().item<double>(), 0.0);
}

TEST(BuffersGuard, AnUnchangedBufferIsNotWrittenTo) {
  const at::Tensor small = torch::rand({3}), large = torch::rand({100000});
  KeptBuffers kept;
  { const BuffersGuard guard({small, large}, &kept); }
  EXPECT_EQ(small._version(), 0u);
  EXPECT_EQ(large._version(), 0u);
}

TEST(BuffersGuard, ALargeUnchangedBufferIsCopiedOnceForAllSteps) {
  const at::Tensor large = torch::rand({100000});
  const at::Tensor before = large.clone();
  KeptBuffers kept;
  const auto allocated_by = [&](const std::function<void()>& pass) {
    return allocated_bytes::peak_of([&] {
      const BuffersGuard guard({large}, &kept);
      pass();
    });
  };
  EXPECT_GE(allocated_by([] {}), 400000);
  EXPECT_EQ(kept.bytes(), 400000);
  EXPECT_LT(allocated_by([] {}), 1000);
  EXPECT_LT(allocated_by([&] { large.add_(1); }), 1000);  // written to in the pass, restored from the existing copy
  EXPECT_TRUE(large.equal(before));
  large.mul_(3);  // by the program, between two steps
  const at::Tensor changed = large.clone();
  EXPECT_LT(allocated_by([&] { large.zero_(); }), 1000);
  EXPECT_TRUE(large.equal(changed));
  large.data().mul_(3);  // LibTorch does not count this
  const at::Tensor uncounted = large.clone();
  allocated_by([&] { large.data().zero_(); });
  EXPECT_TRUE(large.equal(uncounted));
  kept.release();
  EXPECT_EQ(kept.bytes(), 0);
}

}  // namespace
}  // namespace steppe::step
