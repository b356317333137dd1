// SPDX-License-Identifier: MIT
#include "report.hpp"
#include "../../contains.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "../presentation/flaw_of.hpp"
#include "chart.hpp"
#include "statistics.hpp"

namespace cifar {
namespace {

/// A run of two epochs, of which the first has no test.
RunResult result(const std::string& optimizer, uint64_t seed, double test_accuracy, double seconds = 10.0) {
  RunResult run;
  run.settings.optimizer = optimizer;
  run.settings.seed = seed;
  run.settings.epochs = 2;
  run.history.resize(2);
  for (int i = 0; i < 2; ++i) {
    EpochRecord& epoch = run.history[static_cast<size_t>(i)];
    epoch.epoch = i + 1;
    epoch.learning_rate = 0.1;
    epoch.train_loss = 2.0 - i;
    epoch.train_accuracy = 0.2 + 0.3 * i;
    epoch.seconds = seconds * (i + 1) / 2.0;
    epoch.gradients = optimizer == "sgd" ? 1.0 : 1.5 + 0.25 * i;
  }
  run.history[1].test_loss = 1.5;
  run.history[1].test_accuracy = test_accuracy;
  run.measured = {0.25, 0.75, 0.125};
  return run;
}

RunResult stopped(RunResult run) {
  run.history.pop_back();
  run.history.back().test_accuracy = 0.9;
  run.measured = {};
  return run;
}

std::vector<RunResult> three_seeds() {
  return {result("sgd", 0, 0.30), result("sam", 0, 0.35, 20.0),  result("gcsam", 0, 0.31, 20.0),
          result("sgd", 1, 0.31), result("sam", 1, 0.365, 20.0), result("gcsam", 1, 0.30, 20.0),
          result("sgd", 2, 0.32), result("sam", 2, 0.37, 20.0),  result("gcsam", 2, 0.325, 20.0)};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(CifarStatistics, DifferencesPairTheSeeds) {
  std::vector<RunResult> results = three_seeds();
  std::reverse(results.begin(), results.end());
  results.push_back(result("sam", 7, 0.99));  // no sgd with this seed
  const std::vector<double> differences = differences_to_base(results, "sam", test_accuracy);
  ASSERT_EQ(differences.size(), 3U);
  EXPECT_NEAR(differences[0], 0.05, 1e-12);
  EXPECT_NEAR(differences[1], 0.055, 1e-12);
  EXPECT_EQ(base_among(results, "sam"), "sgd");
  EXPECT_EQ(base_among(results, "adam+sam"), "");
  EXPECT_EQ(base_among(results, "sgd"), "");
}

TEST(CifarStatistics, ARunThatWasStoppedHasNoEnd) {
  EXPECT_DOUBLE_EQ(test_accuracy(result("sgd", 0, 0.3)), 0.3);
  EXPECT_TRUE(std::isnan(test_accuracy(stopped(result("sgd", 0, 0.3)))));
  EXPECT_TRUE(std::isnan(training_seconds(stopped(result("sgd", 0, 0.3)))));
  EXPECT_DOUBLE_EQ(gradients_per_step(result("sam", 0, 0.3)), 1.75);
  EXPECT_TRUE(std::isnan(gradients_per_step(stopped(result("sam", 0, 0.3)))));
  EXPECT_TRUE(std::isnan(test_accuracy(RunResult())));
}

TEST(CifarReport, TheTableHasARowPerOptimizerInAlignedColumns) {
  const std::vector<std::string> lines = lines_of(text_of(table(three_seeds())));
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_TRUE(contains(lines[0], "test accuracy"));
  EXPECT_TRUE(contains(lines[1], "rho 0.05"));
  EXPECT_TRUE(contains(lines[2], "31.0 ± 1.0")) << lines[2];
  EXPECT_TRUE(contains(lines[3], "36.2 ± 1.0")) << lines[3];
  EXPECT_TRUE(contains(lines[0], "seconds  times base  gradients")) << lines[0];
  EXPECT_TRUE(contains(lines[1], "per step")) << lines[1];
  EXPECT_TRUE(contains(lines[2], "10.0 ± 0.0        1.00       1.00")) << lines[2];
  EXPECT_TRUE(contains(lines[3], "20.0 ± 0.0        2.00       1.75")) << lines[3];
  EXPECT_TRUE(contains(lines[4], "75.0 ± 0.0")) << lines[4];
  const auto characters = [](const std::string& line) {
    return std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
  };
  for (const std::string& line : lines) EXPECT_EQ(characters(line), characters(lines[0])) << line;
}

TEST(CifarReport, OneSeedHasNoSpreadAndAStoppedRunNoNumbers) {
  const std::vector<RunResult> results = {result("sgd", 0, 0.3), stopped(result("sam", 0, 0.4))};
  const std::vector<std::string> lines = lines_of(text_of(table(results)));
  EXPECT_FALSE(contains(text_of(table(results)), "±"));
  EXPECT_TRUE(contains(lines[2], "30.0"));
  EXPECT_FALSE(contains(lines[3], "90")) << lines[3];
  EXPECT_FALSE(contains(lines[3], "1.50")) << "gradients of a run that has no end: " << lines[3];
  EXPECT_FALSE(contains(text_of(table(results)), "nan"));
  EXPECT_EQ(conclusions(results), "");
}

TEST(CifarReport, TheConclusionsSayWhatTheSeedsAllow) {
  const std::vector<std::string> lines = lines_of(conclusions(three_seeds()));
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_TRUE(contains(lines[0], "sam: +5.2 points of test accuracy against sgd, ahead on 3 of 3 seeds")) << lines[0];
  EXPECT_TRUE(contains(lines[0], "better here")) << lines[0];
  EXPECT_TRUE(contains(lines[1], "no difference shown")) << lines[1];
  const std::string worse =
      conclusions({result("sgd", 0, 0.5), result("sam", 0, 0.3), result("sgd", 1, 0.51), result("sam", 1, 0.312)});
  EXPECT_TRUE(contains(worse, "worse here")) << worse;
  const std::string one = conclusions({result("sgd", 0, 0.30), result("sam", 0, 0.35)});
  EXPECT_TRUE(contains(one, "+5.0 points")) << one;
  EXPECT_TRUE(contains(one, "One seed: this cannot be distinguished from chance.")) << one;
}

TEST(CifarReport, TheCsvHasALinePerEpochAndLeavesTheUnknownEmpty) {
  const std::vector<std::string> lines = lines_of(csv_of(csv({result("sgd", 4, 0.3)})));
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].rfind("optimizer,seed,epoch,", 0), 0U);
  EXPECT_NE(lines[0].find(",seconds,gradients,"), std::string::npos) << lines[0];
  EXPECT_EQ(lines[1], "sgd,4,1,0.1,2,0.2,,,,5,1,,,");
  EXPECT_EQ(lines[2], "sgd,4,2,0.1,1,0.5,,1.5,0.3,10,1,0.25,0.75,0.125");
  for (const std::string& line : lines) EXPECT_EQ(std::count(line.begin(), line.end(), ','), 13);
}

TEST(CifarChart, IsWellFormedAndNamesItsAxesAndCurves) {
  const std::string svg = chart(three_seeds()).svg();
  EXPECT_EQ(presentation::flaw_of(svg), "");
  EXPECT_EQ(svg.rfind("<svg xmlns=", 0), 0U);
  for (const char* words :
       {">sgd<", ">sam<", ">gcsam<", "Test accuracy (%)", "Accuracy on the training labels (%)", ">epoch<", "3 seeds"})
    EXPECT_TRUE(contains(svg, words)) << words;
  EXPECT_FALSE(contains(svg, "nan"));
}

size_t occurrences(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(CifarChart, ShowsTheTestAccuracyOverTheTimeOfTraining) {
  const std::string svg = chart(three_seeds()).svg();
  EXPECT_TRUE(contains(svg, "Test accuracy (%) over the time of training")) << svg;
  EXPECT_TRUE(contains(svg, ">seconds<"));
  // sgd has its one test after 10 seconds, sam and gcsam after 20: the axis reaches from the first to the last.
  std::vector<RunResult> results = {result("sgd", 0, 0.30, 100.0), result("sgd", 1, 0.31, 300.0)};
  for (RunResult& run : results) run.history[0].test_accuracy = 0.2;
  const std::string times = chart(results).svg();  // means of 100 and 200 seconds, at 2 places
  EXPECT_TRUE(contains(times, ">100<") && contains(times, ">200<")) << times;
  EXPECT_FALSE(contains(times, ">300<")) << times;
  for (RunResult& run : results)
    for (EpochRecord& epoch : run.history) epoch.seconds = kUnknown;
  EXPECT_FALSE(contains(chart(results).svg(), "nan"));
}

TEST(CifarChart, ReachesToTheEndOfTheLongestRun) {
  RunResult sam = result("sam", 0, 0.35);
  RunResult sgd = result("sgd", 0, 0.3);
  sgd.settings.epochs = 4;
  for (int64_t epoch : {3, 4}) {
    sgd.history.push_back(sgd.history.back());
    sgd.history.back().epoch = epoch;
    sgd.history.back().seconds = 5.0 * static_cast<double>(epoch);
  }
  EXPECT_DOUBLE_EQ(test_accuracy(sgd), 0.3);
  EXPECT_DOUBLE_EQ(test_accuracy(sam), 0.35);
  for (const std::vector<RunResult>& results : {std::vector<RunResult>{sam, sgd}, std::vector<RunResult>{sgd, sam}}) {
    const std::string svg = chart(results).svg();
    EXPECT_EQ(presentation::flaw_of(svg), "");
    EXPECT_EQ(occurrences(svg, ">4</text>"), 2U) << "the epoch axis of both curves\n" << svg;
    EXPECT_EQ(lines_of(csv_of(csv(results))).size(), 7U);
  }
}

TEST(CifarChart, EscapesWords) {
  std::vector<RunResult> results = {result("sgd", 0, 0.3)};
  results[0].settings.dataset = "A<B & C>";
  const std::string svg = chart(results).svg();
  EXPECT_EQ(presentation::flaw_of(svg), "");
  EXPECT_TRUE(contains(svg, "A&lt;B &amp; C&gt;"));
}

TEST(CifarChart, DrawsWhatThereIsOfAnInterruptedComparison) {
  RunResult nothing = result("sam", 0, 0.3);
  nothing.history.clear();
  for (const std::vector<RunResult>& results :
       {std::vector<RunResult>{nothing}, std::vector<RunResult>{stopped(result("sgd", 0, 0.3)), nothing}}) {
    const std::string svg = chart(results).svg();
    EXPECT_EQ(presentation::flaw_of(svg), "");
    EXPECT_FALSE(contains(svg, "nan"));
    EXPECT_TRUE(contains(svg, "1 seed")) << svg;
  }
}

}  // namespace
}  // namespace cifar
