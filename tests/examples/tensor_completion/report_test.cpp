// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <gtest/gtest.h>

#include <string>

#include "conclusions.hpp"
#include "pictures.hpp"

namespace completion {
namespace {

MethodRun run_of(const std::string& method, uint64_t split, double observed, double held_out, double deviation) {
  MethodRun run;
  run.method = method;
  run.split = split;
  Moment moment;
  moment.iteration = 10;
  moment.loss = 0.5;
  moment.training = observed;
  moment.held_out = held_out;
  moment.deviation = deviation;
  run.completion.moments = {moment};
  run.completion.gradients = method == "sam" ? 20 : 10;
  run.errors = {1.0, 2.0, 9.0, presentation::kUnknown};
  run.observed = {5, 6, 7, 8};
  return run;
}

Tried tried_of(const std::string& knob, double value, uint64_t split, double end, double validation, double chosen) {
  Tried tried;
  tried.attempt.knob = knob;
  tried.attempt.value = value;
  tried.attempt.settings.ranks = {8, 6, 8};
  tried.split = split;
  tried.last.held_out = end;
  tried.chosen.validation = validation;
  tried.chosen.held_out = chosen;
  return tried;
}

/// SAM is 0.2 better on held-out entries on both splits, give or take 0.01, and no different on observed ones.
Results two_splits() {
  Results results;
  results.methods = {"adam", "sam"};
  results.splits = {4, 5};
  results.runs = {run_of("adam", 4, 0.95, -1.0, 100.0), run_of("sam", 4, 0.94, -0.79, 90.0),
                  run_of("adam", 5, 0.93, -2.0, 200.0), run_of("sam", 5, 0.94, -1.81, 180.0)};
  results.baselines = {{4, 0.1, 0.0}, {5, 0.1, -0.2}};
  results.tried = {tried_of("as published", 0, 4, -2.0, 0.5, 0.4), tried_of("rank", 2, 4, 0.2, 0.7, 0.6),
                   tried_of("rank", 3, 4, 0.5, 0.6, 0.9),          tried_of("as published", 0, 5, -4.0, 0.5, 0.6),
                   tried_of("rank", 2, 5, 0.4, 0.7, 0.6),          tried_of("rank", 3, 5, 0.5, 0.6, 0.9)};
  return results;
}

void expect_says(const std::string& text, const std::string& words) {
  EXPECT_NE(text.find(words), std::string::npos) << "no '" << words << "' in:\n" << text;
}

TEST(Report, ObservedFitsStandBesideThePublishedOnes) {
  const auto rows = observed_table(two_splits(), Arguments()).rows;
  EXPECT_EQ(rows[0], (std::vector<std::string>{"", "split 4", "split 5", "mean", "published"}));
  EXPECT_EQ(rows[1], (std::vector<std::string>{"adam", "0.9500", "0.9300", "0.9400 ± 0.0141", "0.9482"}));
  EXPECT_EQ(rows[2][4], "0.9485");
  EXPECT_EQ(rows[3][0], "column means");
  EXPECT_EQ(rows[3][4], "-");
}

TEST(Report, PublishedFiguresBelongToTheBundledTensorOnly) {
  Arguments other;
  other.data = "x.npy";
  EXPECT_EQ(observed_table(two_splits(), other).rows[0].back(), "mean");
  EXPECT_EQ(conclusions(two_splits(), other).find("published"), std::string::npos);
}

TEST(Report, SaysWhichFitThePublishedOneHasTheSizeOf) {
  Results results = two_splits();
  expect_says(conclusions(results, Arguments()),
              "adam: the published R2 of 0.9482 is +0.0082 from the one on observed "
              "entries, +2.4482 from the one on held-out entries: it has the size "
              "of the observed ones.");
  for (MethodRun& run : results.runs) std::swap(run.completion.moments[0].training, run.completion.moments[0].held_out);
  expect_says(conclusions(results, Arguments()), "it has the size of the held-out ones.");
}

TEST(Report, ComparesSplitBySplitWithAdam) {
  const std::string text = conclusions(two_splits(), Arguments());
  // -0.01 and 0.01: mean 0, interval -+ 12.706 * 0.01.
  expect_says(text, "(95 % interval -0.1271 to +0.1271: no difference shown)");
  // 90/100 and 180/200: the same factor twice.
  expect_says(text,
              "sam against adam, Q at the end: 0.9 times adam's (geometric mean; less on 2 of 2 splits; "
              "95 % interval 0.9 to 0.9: less)");
  // 1.79/2 and 2.81/3: the root of their product.
  expect_says(text, "sam against adam, squared error on held-out entries: 0.9156 times adam's");
}

TEST(Report, OneSplitTellsNothingOfChance) {
  Results results = two_splits();
  results.splits = {4};
  results.runs.resize(2);
  expect_says(conclusions(results, Arguments()), "0.9 times adam's (one split, which says nothing about chance)");
}

TEST(Report, WithoutAdamNothingIsComparedWithIt) {
  Results results = two_splits();
  results.methods = {"sam"};
  results.runs = {results.runs[1]};
  EXPECT_EQ(conclusions(results, Arguments()).find("against adam"), std::string::npos);
}

TEST(Report, TheCorrelationIsThatOfTheSecondHalf) {
  MethodRun run = run_of("sam", 0, 0.9, 0.5, 1.0);
  run.completion.moments.resize(4);
  for (int64_t i = 0; i < 4; ++i) {
    run.completion.moments[static_cast<size_t>(i)].iteration = 10 * i;
    run.completion.moments[static_cast<size_t>(i)].correlation = i < 2 ? 0.9 : -0.25 * static_cast<double>(i - 1);
  }
  EXPECT_DOUBLE_EQ(late_correlation(run), -0.375);
}

TEST(Report, TheWorstHundredthIsAtLeastOneSample) {
  const auto rows = held_out_table(two_splits()).rows;
  // Errors 1, 2, 9: the median 2, the worst 9 of 12.
  EXPECT_EQ(rows[1][4], "2 ± 0");
  EXPECT_EQ(rows[1][5], "9 ± 0");
  EXPECT_EQ(rows[1][6], "75 ± 0");
}

TEST(Report, DeviationsAreRelatedToAdams) {
  const auto rows = deviation_table(two_splits()).rows;
  EXPECT_EQ(rows[1][4], "1.0000");
  EXPECT_EQ(rows[2][4], "0.9000");
  EXPECT_EQ(rows[2][6], "20 ± 0");
}

TEST(Report, TheChoiceAmongAttemptsIsMadeByValidation) {
  const std::string text = attempt_conclusions(two_splits());
  // Rank 3 would be better on held-out entries, which must not decide.
  expect_says(text, "The best of all by validation is 'rank 2': held-out R2 0.600 ± 0.000 there");
  expect_says(text, "changing nothing else: held-out R2 0.500 ± 0.141 instead of -3 ± 1.41");
  expect_says(text, "rank: held-out R2 at the end from 0.3 (at 2) to 0.5 (at 3)");
}

TEST(Report, WithoutAttemptsThereIsNothingToSayOfThem) {
  Results results = two_splits();
  results.tried.clear();
  EXPECT_EQ(attempt_conclusions(results), "");
}

TEST(Report, EveryMomentAndEverySampleIsInItsFile) {
  EXPECT_EQ(moments_csv(two_splits()).rows.size(), 5u);
  EXPECT_EQ(samples_csv(two_splits()).rows.size(), 17u);
  EXPECT_EQ(attempts_csv(two_splits()).rows.size(), 7u);
  // What is unknown is empty.
  EXPECT_EQ(samples_csv(two_splits()).rows[4][4], "");
}

TEST(Pictures, NameTheirAxes) {
  expect_says(fit_figure(two_splits()).svg(), "1 - R2 on the held-out entries");
  expect_says(deviation_figure(two_splits()).svg(), "Norm deviation Q");
  expect_says(samples_figure(two_splits()).svg(), "observed entries of the sample");
  expect_says(attempts_figure(two_splits()).svg(), "1 - R2 held out");
}

TEST(Attempts, ChangeOneThingAndKeepTheMethodElse) {
  TrainingSettings published;
  published.ranks = {8, 6, 8};
  const auto all = attempts(published);
  EXPECT_EQ(all.front().label(), "as published");
  EXPECT_EQ(all.front().settings.method, "adam");
  for (const Attempt& attempt : all) {
    if (attempt.knob == "weight decay") {
      EXPECT_EQ(attempt.settings.weight_decay, attempt.value);
      EXPECT_EQ(attempt.settings.ranks, published.ranks);
    }
    if (attempt.label() == "rank 6") {
      EXPECT_EQ(attempt.settings.ranks, (std::vector<int64_t>{6, 6, 6}));
    }
    EXPECT_EQ(attempt.settings.method == "sam", attempt.knob == "rho of sam");
  }
}

}  // namespace
}  // namespace completion
