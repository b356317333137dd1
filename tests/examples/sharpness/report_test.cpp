// SPDX-License-Identifier: MIT
#include "sharpness/report.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "sharpness/pictures.hpp"

namespace flatness {
namespace {

Measured run_of(const std::string& optimizer, uint64_t seed, double trace, double accuracy) {
  Measured m;
  m.run.optimizer = optimizer;
  m.run.seed = seed;
  m.run.epochs = m.epochs = 2;
  m.images = 10;
  m.parameters = 100;
  m.products = "double backward (asked for)";
  m.train = {0.5, 0.9};
  m.test = {1.5, accuracy};
  m.trace = {trace, 1.0, 10};
  m.top.values = {trace / 2, trace / 4};
  m.top.residuals = {1e-3, 1e-3};
  m.top.converged = true;
  m.density.nodes = {-1.0, trace};
  m.density.weights = {0.5, 0.5};
  m.density.grid = {-1.0, 0.0, 1.0};
  m.density.density = {0.5, 1e-12, 0.5};
  m.density.sigma = 0.1;
  m.sam = {{0.5, 0.6, trace / 100, 1.0}};
  m.average = m.worst = {trace / 10, 0.1, 3};
  m.slice = {{-1.0, 0.0, 1.0}, {2.0, 0.5, 2.0}};
  return m;
}

Settings one_rho() {
  Settings settings;
  settings.rhos = {0.05};
  return settings;
}

TEST(SharpnessReport, GroupsRunsThatDifferInTheirSeedOnly) {
  std::vector<Measured> results = {run_of("sgd", 0, 100, 0.4), run_of("sam", 0, 50, 0.5), run_of("sgd", 1, 120, 0.4),
                                   run_of("sam", 1, 60, 0.5)};
  results[3].run.rho = 0.2;
  results[1].run.rho = 0.1;
  const auto groups = groups_of(results);
  ASSERT_EQ(groups.size(), 3U);
  EXPECT_EQ(groups[0].name, "sgd");
  EXPECT_EQ(groups[0].runs.size(), 2U);
  EXPECT_EQ(groups[1].name.rfind("sam, rho 0.1", 0), 0U);
  EXPECT_EQ(label_of(groups[0], results[2]), "sgd, seed 1");
}

TEST(SharpnessReport, GivesMeanAndDeviationOfEachGroup) {
  const std::vector<Measured> results = {run_of("sgd", 0, 100, 0.4), run_of("sgd", 1, 120, 0.4)};
  const auto table = comparison_table(results, one_rho());
  ASSERT_EQ(table.rows.size(), 3U);
  const auto& names = table.rows[0];
  const auto column = static_cast<size_t>(std::find(names.begin(), names.end(), "trace") - names.begin());
  EXPECT_EQ(table.rows[2][column], "110 ± 14.14");
  for (const auto& row : table.rows) EXPECT_EQ(row.size(), names.size());
}

TEST(SharpnessReport, ComparesWithThePlainOptimizerSeedBySeed) {
  const std::vector<Measured> results = {run_of("sam", 0, 50, 0.5), run_of("sam", 1, 60, 0.5),
                                         run_of("sgd", 0, 100, 0.4), run_of("sgd", 1, 40, 0.4)};
  const std::string words = conclusions(results, one_rho());
  EXPECT_NE(words.find("sam against sgd"), std::string::npos);
  EXPECT_NE(words.find("trace: smaller on 1 of 2 seeds (1.00 times on average)"), std::string::npos) << words;
}

TEST(SharpnessReport, CorrelatesWithTheTestErrorFromFourRunsOn) {
  std::vector<Measured> results = {run_of("sgd", 0, 100, 0.4), run_of("sgd", 1, 90, 0.45), run_of("sam", 0, 50, 0.5)};
  EXPECT_EQ(rank_table(results, one_rho()).rows.size(), 1U);
  results.push_back(run_of("sam", 1, 60, 0.48));
  const auto table = rank_table(results, one_rho());
  ASSERT_EQ(table.rows.size(), 6U);
  EXPECT_EQ(table.rows[1], (std::vector<std::string>{"trace", "+1.00", "+1.00"}));
}

TEST(SharpnessReport, GivesStandardErrorsWhereThereAreAny) {
  std::vector<Measured> results = {run_of("sgd", 0, 100, 0.4)};
  results[0].worst.standard_error = std::nan("");  // one batch
  const auto row = runs_table(results, one_rho()).rows.back();
  EXPECT_EQ(row[row.size() - 2], "10.0000 ± 0.1");
  EXPECT_EQ(row.back(), "10.000");
}

TEST(SharpnessReport, SaysHowProductsWereTaken) {
  const std::string words = conditions({run_of("sgd", 0, 100, 0.4)}, one_rho());
  EXPECT_NE(words.find("double backward (asked for)"), std::string::npos);
  EXPECT_NE(words.find("first 10 training images"), std::string::npos);
}

TEST(SharpnessPictures, LeaveOutDensitiesBelowATenthOfOneEigenvalue) {
  const Picture picture = spectrum_picture({run_of("sgd", 0, 100, 0.4)});
  EXPECT_EQ(picture.figure.svg().find("1e-12"), std::string::npos);
  EXPECT_EQ(picture.numbers.rows.size(), 1U + 3U + 2U);  // but the CSV has them
}

TEST(SharpnessPictures, DrawAMapForEachRunWithAPlane) {
  std::vector<Measured> results = {run_of("sgd", 0, 100, 0.4), run_of("sgd", 1, 100, 0.4)};
  results[0].plane = steppe::sharpness::Plane{{-1.0, 1.0}, {{1.0, 2.0}, {3.0, 4.0}}};
  const Picture picture = plane_picture(results);
  EXPECT_EQ(picture.numbers.rows.size(), 1U + 4U);
  EXPECT_NE(picture.figure.svg().find("sgd, seed 0"), std::string::npos);
  EXPECT_EQ(picture.figure.svg().find("sgd, seed 1"), std::string::npos);
}

}  // namespace
}  // namespace flatness
