// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/step/rng_replay.hpp>
#include <torch/types.h>

namespace steppe::step {
namespace {

TEST(RngReplay, ReplaysTheSameNumbersAndEndsWhereOnePassWouldHave) {
  torch::manual_seed(1);
  const at::Tensor first = torch::rand({8});
  const at::Tensor after_one_pass = torch::rand({8});

  torch::manual_seed(1);
  {
    RngReplay rng({});
    EXPECT_TRUE(torch::rand({8}).equal(first));
    rng.replay();
    EXPECT_TRUE(torch::rand({8}).equal(first));
    torch::rand({100});  // a second pass that draws more than the first
  }
  EXPECT_TRUE(torch::rand({8}).equal(after_one_pass));
}

TEST(RngReplay, WithoutReplayNothingIsTouched) {
  torch::manual_seed(2);
  const at::Tensor expected = torch::rand({4});
  torch::manual_seed(2);
  { const RngReplay rng({}); }
  EXPECT_TRUE(torch::rand({4}).equal(expected));
}

}  // namespace
}  // namespace steppe::step
