// SPDX-License-Identifier: MIT
#include "sharpness/arguments.hpp"

#include <gtest/gtest.h>

namespace flatness {
namespace {

struct Parsed {
  Arguments arguments;
  std::optional<int> code;
  std::string said;
};

Parsed parse(std::vector<const char*> words) {
  words.insert(words.begin(), "steppe-sharpness");
  Parsed parsed;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  parsed.code = parse_arguments(static_cast<int>(words.size()), words.data(), parsed.arguments);
  parsed.said = testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr();
  return parsed;
}

TEST(SharpnessArguments, WithoutACheckpointSaysWhatToDo) {
  const Parsed parsed = parse({});
  EXPECT_TRUE(parsed.code && *parsed.code != 0);
  EXPECT_NE(parsed.said.find("steppe-cifar --compare"), std::string::npos) << parsed.said;
  EXPECT_FALSE(parse({"--quick"}).code);
}

TEST(SharpnessArguments, QuickLeavesWhatWasAskedFor) {
  const Settings settings = parse({"--quick", "--images", "99", "--rho", "0.1,0.3"}).arguments.settings;
  EXPECT_EQ(settings.images, 99);
  EXPECT_EQ(settings.rhos, (std::vector<double>{0.1, 0.3}));
  EXPECT_LT(settings.vectors, Settings().vectors);
}

TEST(SharpnessArguments, TakesSeveralCheckpoints) {
  const Arguments arguments = parse({"a.pt", "b.pt", "--seed", "7"}).arguments;
  EXPECT_EQ(arguments.checkpoints.size(), 2U);
  EXPECT_EQ(arguments.settings.seed, 7U);
}

TEST(SharpnessArguments, NamesWhatIsOutOfRange) {
  for (const std::vector<const char*>& wrong : std::vector<std::vector<const char*>>{{"a.pt", "--k", "0"},
                                                                                     {"a.pt", "--rho", "0.1,-1"},
                                                                                     {"a.pt", "--points", "1"},
                                                                                     {"a.pt", "--vectors", "nan"},
                                                                                     {"a.pt", "--device", "tpu"}}) {
    const Parsed parsed = parse(wrong);
    EXPECT_TRUE(parsed.code && *parsed.code != 0) << wrong[1];
    EXPECT_NE(parsed.said.find(wrong[1]), std::string::npos) << parsed.said;
  }
  EXPECT_EQ(parse({"--help"}).code.value_or(1), 0);
}

}  // namespace
}  // namespace flatness
