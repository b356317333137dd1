// SPDX-License-Identifier: MIT
#include "statistics/arguments.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace statistics {
namespace {

struct Parsed {
  Arguments arguments;
  std::optional<int> code;
  std::string out, error;
};

Parsed parse(std::vector<std::string> words) {
  words.insert(words.begin(), "steppe-statistics");
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  Parsed parsed;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  parsed.code = parse_arguments(static_cast<int>(argv.size()), argv.data(), parsed.arguments);
  parsed.out = testing::internal::GetCapturedStdout();
  parsed.error = testing::internal::GetCapturedStderr();
  return parsed;
}

TEST(StatisticsArguments, QuickLeavesWhatTheUserSays) {
  const Parsed quick = parse({"--quick", "--draws", "50", "--label-noise", "0.3"});
  EXPECT_FALSE(quick.code);
  EXPECT_EQ(quick.arguments.kernel.draws, 50);
  EXPECT_EQ(quick.arguments.network.noise, std::vector<double>{0.3});
  EXPECT_LT(quick.arguments.kernel.iterations, KernelSettings().iterations);
  EXPECT_LT(quick.arguments.network.seeds, NetworkStudySettings().seeds);
}

TEST(StatisticsArguments, ListsAreSeparatedByCommas) {
  const Parsed parsed = parse({"--sigmas", "0,0.5", "--classes", "3,5", "--only", "kernel"});
  EXPECT_FALSE(parsed.code) << parsed.error;
  EXPECT_EQ(parsed.arguments.kernel.sigmas, (std::vector<double>{0.0, 0.5}));
  EXPECT_EQ(parsed.arguments.network.classes, (std::vector<int64_t>{3, 5}));
  EXPECT_EQ(parsed.arguments.only, "kernel");
}

TEST(StatisticsArguments, HelpNamesEveryOption) {
  const Parsed help = parse({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const char* option :
       {"--only",        "--n",       "--bandwidth", "--rho",          "--eta",     "--iterations",
        "--draws",       "--designs", "--sigmas",    "--data",         "--classes", "--label-noise",
        "--hidden",      "--lr",      "--sam-rho",   "--gradient-rho", "--steps",   "--seeds",
        "--label-draws", "--quick",   "--seed",      "--out"})
    EXPECT_NE(help.out.find(option), std::string::npos) << option;
}

TEST(StatisticsArguments, WhatCannotWorkIsRefused) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"--n", "1"},
                                                                                     {"--n", "ten"},
                                                                                     {"--eta", "2"},
                                                                                     {"--eta", "0"},
                                                                                     {"--rho", "-1"},
                                                                                     {"--bandwidth", "0"},
                                                                                     {"--draws", "2"},
                                                                                     {"--sigmas", "0,-1"},
                                                                                     {"--sigmas", "0,nan"},
                                                                                     {"--classes", "1"},
                                                                                     {"--classes", "1,2,3"},
                                                                                     {"--label-noise", "0.6"},
                                                                                     {"--label-draws", "1"},
                                                                                     {"--only", "both"},
                                                                                     {"--unknown"}}) {
    const Parsed parsed = parse(words);
    EXPECT_TRUE(parsed.code && *parsed.code != 0) << words.front() << " " << words.back();
    EXPECT_NE(parsed.error, "") << words.front();
  }
}

}  // namespace
}  // namespace statistics
