// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <string>

#include "../../contains.hpp"
#include "../presentation/flaw_of.hpp"
#include "../temporary_folder.hpp"
#include "statistics/kernel_report.hpp"
#include "statistics/network_report.hpp"

namespace statistics {
namespace {

KernelStudy small_study(double eta) {
  KernelSettings settings;
  settings.n = 30;
  settings.iterations = 150;
  settings.draws = 10;
  settings.designs = 3;
  settings.eta = eta;
  settings.sigmas = {0.0, 1.0};
  testing::internal::CaptureStdout();
  KernelStudy study = carry_out(settings, 0);
  testing::internal::GetCapturedStdout();
  return study;
}

TEST(KernelReport, StatesTheConditionAndWhetherItHolds) {
  const KernelStudy study = small_study(0.5);
  EXPECT_TRUE(contains(conditions(study), "<= 1 holds: it is 0.5. At every one of the 150 steps")) << conditions(study);
  const std::string broken = conditions(small_study(1.95));
  EXPECT_TRUE(contains(broken, "<= 1 is broken: it is 1.95. SAM's bias^2 is larger than GD's at")) << broken;
}

TEST(KernelReport, SaysOfEverySigmaWhoIsAheadAndWhere) {
  KernelStudy study = small_study(0.5);
  EXPECT_TRUE(study.finished);
  EXPECT_TRUE(contains(conclusions(study), "sigma 0: SAM's risk is lower at k = 1 to 150; GD's at none."));
  study.levels[1].ahead = {{1, 7, Ahead::First}, {8, 150, Ahead::Second}};
  study.levels[1].gaps = {0.2, 0.3, 0.25};
  EXPECT_TRUE(contains(conclusions(study), "sigma 1: SAM's risk is lower at k = 1 to 7; GD's at 8 to 150."));
  EXPECT_TRUE(contains(conclusions(study),
                       "+0.250 % on average over 3 sets of points (95 % interval +0.126 to +0.374): GD ahead."))
      << conclusions(study);
  study.levels[1].gaps = {-0.2, 0.3, 0.1};
  EXPECT_TRUE(contains(conclusions(study), "no difference shown"));
  EXPECT_EQ(table(study).rows.size(), 4U);
  EXPECT_TRUE(contains(table(study).rows[2][1], "150 (end)"));
}

TEST(KernelReport, WritesAPageWithItsPictures) {
  const examples::TemporaryFolder folder;
  presentation::Page page(folder.path(), "Title");
  add_to(page, small_study(0.5));
  for (const char* name : {"kernel_curves", "kernel_differences"}) {
    const std::string svg = examples::read_file(folder / (std::string(name) + ".svg"));
    EXPECT_EQ(presentation::flaw_of(svg), "") << name;
    EXPECT_FALSE(contains(svg, "nan")) << name;
    EXPECT_TRUE(contains(svg, "step k"));
    EXPECT_TRUE(contains(examples::read_file(folder / "index.html"), std::string(name) + ".csv"));
  }
}

NetworkCurves curves(double error, double bias, double variance) {
  NetworkCurves made;
  for (const double factor : {2.0, 1.5, 1.0, 1.2}) {
    made.error.push_back(factor * error);
    made.bias.push_back(factor * bias);
    made.variance.push_back(variance / factor);
    made.risk.push_back(made.bias.back() + made.variance.back());
  }
  made.top_eigenvalue = 10.0 * bias;
  return made;
}

/// Three seeds: SAM is ahead of GD without noise, and on one of three seeds with noise.
NetworkStudy network_study() {
  NetworkStudy study;
  study.settings.noise = {0.0, 0.2};
  study.settings.iterations = 4;
  study.steps = {0, 1, 2, 4};
  study.methods = {{"GD", Method::Kind::GradientDescent, 0.0}, {"SAM", Method::Kind::Sam, 0.1}};
  study.data_name = "CIFAR-10";
  study.finished = true;
  study.curves = {{{curves(0.20, 0.5, 0.1), curves(0.10, 0.4, 0.2)},
                   {curves(0.21, 0.5, 0.1), curves(0.12, 0.4, 0.2)},
                   {curves(0.22, 0.5, 0.1), curves(0.11, 0.4, 0.2)}},
                  {{curves(0.20, 0.5, 0.1), curves(0.25, 0.5, 0.1)},
                   {curves(0.21, 0.5, 0.1), curves(0.20, 0.5, 0.1)},
                   {curves(0.22, 0.5, 0.1), curves(0.23, 0.5, 0.1)}}};
  return study;
}

TEST(NetworkReport, PairsTheSeedsAndNamesTheInterval) {
  const std::string words = conclusions(network_study());
  EXPECT_TRUE(
      contains(words,
               "SAM, test error at the best stop (points): -10.00, lower on 3 of 3 seeds (95 % interval -12.48 to "
               "-7.52): lower here"))
      << words;
  EXPECT_TRUE(contains(words, "SAM, test error at the best stop (points): +1.67, lower on 1 of 3 seeds")) << words;
  EXPECT_TRUE(contains(words, "no difference shown"));
  EXPECT_TRUE(contains(words, "SAM, mean over the seeds: bias² lower at steps 1 to 4; squared error lower at"))
      << words;
}

TEST(NetworkReport, AMeanBelowZeroIsNotEnough) {
  NetworkStudy study = network_study();
  study.curves[0][0][1] = curves(0.24, 0.4, 0.2);
  const std::string words = conclusions(study), start = "SAM, test error at the best stop (points): -5.33";
  ASSERT_TRUE(contains(words, start)) << words;
  const std::string line = words.substr(words.find(start), words.find('\n', words.find(start)) - words.find(start));
  EXPECT_TRUE(contains(line, "no difference shown")) << line;
}

TEST(NetworkReport, TablesHaveARowForEachLevelAndMethod) {
  const NetworkStudy study = network_study();
  const auto errors = error_table(study).rows, biases = bias_table(study).rows;
  ASSERT_EQ(errors.size(), 6U);
  ASSERT_EQ(biases.size(), 6U);
  EXPECT_EQ(errors[3], (std::vector<std::string>{"SAM", "0", "2 ± 0", "11.0 ± 1.0", "-10.00 ± 1.00", "13.2 ± 1.2",
                                                 "-12.00 ± 1.20"}));
  EXPECT_EQ(biases[2][9], "5.00 ± 0.00");
}

TEST(NetworkReport, OneSeedProvesNothing) {
  NetworkStudy study = network_study();
  for (auto& level : study.curves) level.resize(1);
  EXPECT_TRUE(contains(conclusions(study), "One seed: this cannot be distinguished from chance."));
}

TEST(NetworkReport, WritesAPageWithItsPicture) {
  const examples::TemporaryFolder folder;
  presentation::Page page(folder.path(), "Title");
  add_to(page, network_study());
  EXPECT_EQ(presentation::flaw_of(examples::read_file(folder / "network_curves.svg")), "");
  const std::string html = examples::read_file(folder / "index.html");
  EXPECT_TRUE(contains(html, "as the theory does.")) << "the conditions are whole";
}

}  // namespace
}  // namespace statistics
