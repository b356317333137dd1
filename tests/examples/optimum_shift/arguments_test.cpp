// SPDX-License-Identifier: MIT
#include "optimum_shift/arguments.hpp"

#include <gtest/gtest.h>

namespace shifting {
namespace {

struct Parsed {
  Arguments arguments;
  std::optional<int> code;
  std::string said;
};

Parsed parse(std::vector<const char*> words) {
  words.insert(words.begin(), "steppe-optimum-shift");
  Parsed parsed;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  try {
    parsed.code = parse_arguments(static_cast<int>(words.size()), words.data(), parsed.arguments);
  } catch (const std::exception& error) {
    parsed.code = 1;  // as main does
    parsed.said = error.what();
  }
  parsed.said += testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr();
  return parsed;
}

TEST(OptimumShiftArguments, TrainAsSteppeCifarDoesButOnTheRightLabels) {
  const Arguments arguments = parse({"--label-noise", "0.25", "--epochs", "7"}).arguments;
  const cifar::RunSettings run = arguments.training.run("sam", 4);
  EXPECT_EQ(run.model, "small");
  EXPECT_DOUBLE_EQ(run.label_noise, 0.25);
  EXPECT_EQ(run.epochs, 7);
  EXPECT_EQ(run.seed, 4U);
  EXPECT_DOUBLE_EQ(run.rho, 0.2);
  EXPECT_DOUBLE_EQ(parse({}).arguments.training.settings.label_noise, 0.0);
  EXPECT_EQ(parse({"--data", "somewhere"}).arguments.training.settings.model, "resnet20");
}

TEST(OptimumShiftArguments, QuickLeavesWhatWasAskedFor) {
  const Arguments arguments = parse({"--quick", "--every", "9", "--epochs", "1"}).arguments;
  EXPECT_EQ(arguments.settings.every, 9);
  EXPECT_EQ(arguments.training.settings.epochs, 1);
  EXPECT_EQ(arguments.seeds, 1);
}

TEST(OptimumShiftArguments, NamesWhatIsOutOfRange) {
  for (const std::vector<const char*>& wrong : std::vector<std::vector<const char*>>{{"--batch", "0"},
                                                                                     {"--tolerance", "-1"},
                                                                                     {"--ridge", "0"},
                                                                                     {"--from", "1"},
                                                                                     {"--model", "vgg"},
                                                                                     {"--every", "none"}}) {
    const Parsed parsed = parse(wrong);
    EXPECT_TRUE(parsed.code && *parsed.code != 0) << wrong[0];
    EXPECT_NE(parsed.said.find(wrong[0]), std::string::npos) << parsed.said;
  }
  EXPECT_NE(parse({"--optimizers", "sgd,mas"}).said.find("mas"), std::string::npos);
  EXPECT_EQ(parse({"--help"}).code.value_or(1), 0);
}

}  // namespace
}  // namespace shifting
