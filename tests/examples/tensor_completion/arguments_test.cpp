// SPDX-License-Identifier: MIT
#include "arguments.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace completion {
namespace {

Arguments parsed(std::vector<const char*> words) {
  words.insert(words.begin(), "steppe-tensor-completion");
  Arguments arguments;
  EXPECT_FALSE(parse_arguments(static_cast<int>(words.size()), words.data(), arguments).has_value());
  return arguments;
}

TEST(Arguments, AreThePublishedSettingUnlessGiven) {
  Arguments arguments = parsed({});
  arguments.training.ranks = {8, 6, 8};
  EXPECT_TRUE(arguments.as_published());
  EXPECT_EQ(arguments.training.iterations, 50000);
  EXPECT_EQ(arguments.training.learning_rate, 1e-3);
  EXPECT_EQ(arguments.training.rho, 0.01);
  EXPECT_EQ(arguments.training.alpha, 0.001);
  EXPECT_EQ(arguments.training.initial_scale, 0.3);
  EXPECT_EQ(arguments.masked, 0.7);
  EXPECT_EQ(arguments.splits, 3);
  EXPECT_EQ(arguments.study.seed, 0u);
  EXPECT_EQ(arguments.study.threads, 1);
}

TEST(Arguments, AnyChangeIsNoLongerPublished) {
  for (const auto& words : std::vector<std::vector<const char*>>{{"--iterations", "100"},
                                                                 {"--masked", "0.5"},
                                                                 {"--lr", "0.01"},
                                                                 {"--rho", "0.1"},
                                                                 {"--alpha", "0.1"},
                                                                 {"--initial-scale", "0.1"},
                                                                 {"--data", "x.npy"},
                                                                 {"--quick"}}) {
    Arguments arguments = parsed(words);
    arguments.training.ranks = {8, 6, 8};
    EXPECT_FALSE(arguments.as_published()) << words[0];
  }
  EXPECT_FALSE(parsed({"--rank", "4,4,4"}).as_published());
}

TEST(Arguments, QuickGivesWayToWhatIsGiven) {
  const Arguments quick = parsed({"--quick"});
  EXPECT_LT(quick.training.iterations, 50000);
  EXPECT_EQ(quick.splits, 1);
  const Arguments given = parsed({"--quick", "--iterations", "77", "--splits", "2", "--held-out-iterations", "0"});
  EXPECT_EQ(given.training.iterations, 77);
  EXPECT_EQ(given.splits, 2);
  EXPECT_EQ(given.attempt_iterations, 0);
}

TEST(Arguments, ListsAreSeparatedByCommas) {
  const Arguments arguments = parsed({"--rank", "4,3,2", "--optimizers", "sam,hooi"});
  EXPECT_EQ(arguments.training.ranks, (std::vector<int64_t>{4, 3, 2}));
  EXPECT_EQ(arguments.methods, (std::vector<std::string>{"sam", "hooi"}));
}

}  // namespace
}  // namespace completion
