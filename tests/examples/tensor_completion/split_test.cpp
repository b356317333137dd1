// SPDX-License-Identifier: MIT
#include "split.hpp"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <vector>

#include "../../errors.hpp"

namespace completion {
namespace {

int64_t count(const at::Tensor& mask) { return mask.sum().item<int64_t>(); }

TEST(Split, HasTheSharesAskedFor) {
  const Split split = draw_split({20, 6, 11}, 0.7, 0.1, 0);
  EXPECT_EQ(count(split.held_out), 924);   // of 1,320
  EXPECT_EQ(count(split.validation), 40);  // of the 396 others
  EXPECT_EQ(count(split.training), 356);
  EXPECT_EQ(count(split.observed()), 396);
}

TEST(Split, EveryEntryIsInOneOfItsParts) {
  const Split split = draw_split({7, 5}, 0.4, 0.2, 3);
  const at::Tensor parts =
      split.training.to(at::kLong).add(split.validation.to(at::kLong)).add(split.held_out.to(at::kLong));
  EXPECT_TRUE(parts.eq(1).all().item<bool>());
}

TEST(Split, IsReproducibleAndChangesWithItsSeed) {
  const Split once = draw_split({9, 8}, 0.5, 0.0, 1), again = draw_split({9, 8}, 0.5, 0.0, 1);
  EXPECT_TRUE(at::equal(once.held_out, again.held_out));
  EXPECT_FALSE(at::equal(once.held_out, draw_split({9, 8}, 0.5, 0.0, 2).held_out));
}

TEST(Split, IsDrawnTheSameOnEveryPlatform) {
  const at::Tensor held_out = draw_split({10}, 0.3, 0.0, 0).held_out;
  std::vector<int64_t> found;
  for (int64_t i = 0; i < 10; ++i)
    if (held_out[i].item<bool>()) found.push_back(i);
  // Computed independently: Fisher-Yates from the end with the 64-bit Mersenne twister.
  EXPECT_EQ(found, (std::vector<int64_t>{0, 2, 7}));
}

TEST(Split, HoldsOutTheSameEntriesWithAndWithoutValidation) {
  EXPECT_TRUE(at::equal(draw_split({9, 8}, 0.5, 0.0, 1).held_out, draw_split({9, 8}, 0.5, 0.3, 1).held_out));
}

TEST(Split, RefusesSharesThatLeaveNothing) {
  EXPECT_NE(message_of([] { draw_split({9}, 1.0, 0.0, 0); }).find("under 1, not 1.0"), std::string::npos);
  EXPECT_NE(message_of([] { draw_split({9}, -0.1, 0.0, 0); }).find("at least 0"), std::string::npos);
  EXPECT_NE(message_of([] { draw_split({2}, 0.9, 0.0, 0); }).find("none is left"), std::string::npos);
  EXPECT_NE(message_of([] { draw_split({0, 3}, 0.5, 0.0, 0); }).find("none is left"), std::string::npos);
}

}  // namespace
}  // namespace completion
