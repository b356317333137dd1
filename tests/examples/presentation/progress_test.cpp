// SPDX-License-Identifier: MIT
#include "presentation/progress.hpp"
#include "../../contains.hpp"

#include <gtest/gtest.h>

#include <string>

namespace presentation {
namespace {

TEST(Progress, DurationsHaveTheUnitThatFits) {
  EXPECT_EQ(duration(-3.0), "0 s");
  EXPECT_EQ(duration(59.4), "59 s");
  EXPECT_EQ(duration(59.6), "1:00 min");
  EXPECT_EQ(duration(725.0), "12:05 min");
  EXPECT_EQ(duration(3 * 3600 + 7 * 60 + 5), "3:07 h");
}

TEST(Progress, TheLineFitsAnyWidthAndHasABarWhereThereIsRoom) {
  ProgressState state{"adam+zsharp, seed 1  epoch 3/30", 0.5, "loss 1.234  acc 45.6 %", 65.0};
  for (size_t width = 1; width <= 250; ++width) EXPECT_LE(progress_line(state, width, true).size(), width);
  const std::string wide = progress_line(state, 150, true);
  EXPECT_TRUE(contains(wide, "adam+zsharp, seed 1  epoch 3/30  [===============               ]  loss 1.234")) << wide;
  EXPECT_TRUE(contains(wide, "acc 45.6 %  1:05 min left")) << wide;
  EXPECT_FALSE(contains(progress_line(state, 150, false), "["));
  EXPECT_FALSE(contains(progress_line(state, 76, true), "["));
  for (const double share : {-1.0, 0.0, 1.0, 2.0}) {
    state.share = share;
    EXPECT_EQ(progress_line(state, 150, true).size(), wide.size());
  }
}

TEST(Progress, ALineWithoutNumbersHasTheTimeLeftAlone) {
  EXPECT_EQ(progress_line({"trace", 0.5, "", 5.0}, 40, false), "trace  5 s left");
}

}  // namespace
}  // namespace presentation
