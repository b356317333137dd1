// The CUDA kernels have no data races: every variant of every kernel, over models in which every branch is taken.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "../expectations.hpp"
#include "../host_model.hpp"
#include "../model.hpp"
#include "detector.hpp"
#include "watched_launch.hpp"

namespace steppe::kernels::cuda {
namespace {

using Model = HostModel<races::WatchedLaunch>;

constexpr Format kFormats[] = {Format::Float32, Format::BFloat16, Format::Half};

class CudaKernelsHaveNoRaces : public testing::Test {
 protected:
  static void SetUpTestSuite() { first_ = races::totals(); }
  static void TearDownTestSuite() {
    const races::Totals last = races::totals();
    std::cout << last.launches - first_.launches << " launches, " << last.accesses - first_.accesses << " accesses, "
              << last.switches - first_.switches << " switches, " << last.races - first_.races << " races\n";
  }

  void SetUp() override { before_ = races::totals(); }
  void TearDown() override {
    const races::Totals after = races::totals();
    EXPECT_GT(after.accesses, before_.accesses);
    EXPECT_EQ(after.races, before_.races) << races::report();
    races::forget_races();
  }

 private:
  static inline races::Totals first_;
  races::Totals before_;
};

/// Layers of one format: the recipe's beside a plain one, in sizes around those of vectors, batches, teams and chunks.
void add_layers(std::vector<Numbers>& model, const Asked& asked, Format format, Random& random) {
  for (const auto& [rows, row] : std::vector<std::pair<int64_t, int64_t>>{{20, 16}, {7, 9}, {2, 150}, {1, 5}})
    model.push_back(
        layer_of(asked, format, rows, row, values_of(Values::Shifted, rows * row, 1.0, random), random, 0.5));
  model.push_back(layer_of({"plain"}, format, 1, 40, values_of(Values::Normal, 40, 1.0, random), random, 0.5));
}

const std::vector<Cut> kCuts = {{8, 24, 3, 0}, {8, 136, 2, 1}, {64, 160, 2, 0}, {64, 640, 2, 0}};

TEST_F(CudaKernelsHaveNoRaces, InAnyVariant) {
  std::vector<std::vector<Numbers>> models;
  Random random(1);
  for (const Format format : kFormats)
    for (const Asked& asked : every_recipe()) add_layers(models.emplace_back(), asked, format, random);
  std::vector<Numbers>& several = models.emplace_back();
  for (const Format format : kFormats) add_layers(several, every_recipe().back(), format, random);
  for (const auto& model : models)
    for (const Cut& cut : kCuts) expect_agreement(Model(model, cut, 1).ascend(), ascend_by_definition(model));

  const auto variants = [](const std::string& kernel) {
    return std::count_if(races::kernels().begin(), races::kernels().end(),
                         [&](const std::string& each) { return each.rfind(kernel + "<", 0) == 0; });
  };
  // As check_resources.cmake counts them, for each number of threads; Sample runs where layers are large.
  EXPECT_EQ(variants("Sweep"), 2 * 16);
  EXPECT_EQ(variants("Threshold"), 2 * 7);
  EXPECT_EQ(variants("Move"), 2 * 16);
}

TEST_F(CudaKernelsHaveNoRaces, InRandomModels) {
  for (const Asked& asked : every_recipe())
    for (const Format format : kFormats)
      for (uint64_t seed = 1; seed <= 2; ++seed) {
        const auto model = random_model(asked, format, seed);
        for (const Cut& cut : {Cut{8, 24, 5, 0}, Cut{64, 160, 3, 0}})
          expect_agreement(Model(model, cut, seed).ascend(), ascend_by_definition(model));
      }
}

/// Layers with a window, more than there are blocks, and one that is too small for it, in several formats or one.
std::vector<Numbers> windowed_model(bool scaled, bool mixed, const std::vector<float>& g) {
  const Asked asked{"filtered", false, true, scaled, 0.95};
  const auto n = static_cast<int64_t>(g.size());
  Random random(2);
  std::vector<Numbers> model;
  for (const Format format : {Format::BFloat16, Format::Half, Format::Float32})
    model.push_back(layer_of(asked, mixed ? format : Format::BFloat16, 1, n, g, random, 0.5));
  model.push_back(layer_of(asked, Format::BFloat16, 1, 100, values_of(Values::Normal, 100, 1.0, random), random, 0.5));
  return model;
}

/// Chunks whose lists have room for all that is listed, and for one component of each thread.
const Cut kRoomy = {8, 256, 2, 0, 256}, kNarrow = {64, 256, 2, 0, 256};

TEST_F(CudaKernelsHaveNoRaces, InWindows) {
  Random random(3);
  const std::vector<float> g = values_of(Values::Normal, 1500, 0.01, random);
  for (const bool scaled : {false, true})
    for (const bool mixed : {false, true})
      for (const Cut& cut : {kRoomy, kNarrow}) {
        const auto model = windowed_model(scaled, mixed, g);
        Model ours(model, cut);
        expect_agreement(ours.ascend(), ascend_by_definition(model));
        EXPECT_TRUE(ours.listed(0) && ours.listed(1) && ours.listed(2));
        // Over what the first has left behind.
        expect_agreement(ours.ascend(), ascend_by_definition(model));
      }
}

TEST_F(CudaKernelsHaveNoRaces, WhereAWindowProvesNothing) {
  Random random(4);
  for (const Values kind : {Values::AllEqual, Values::MostlyZero})
    for (const Cut& cut : {kRoomy, kNarrow}) {
      const auto model = windowed_model(false, false, values_of(kind, 1500, 1.0, random));
      Model ours(model, cut);
      expect_agreement(ours.ascend(), ascend_by_definition(model));
      EXPECT_FALSE(ours.listed(0));
    }
}

TEST_F(CudaKernelsHaveNoRaces, InListsThatAreFull) {
  Random random(5);
  std::vector<float> g = values_of(Values::Normal, 2000, 0.1, random);
  // The largest components side by side, outside of the sample.
  for (size_t i = 1050; i < 1110; ++i) g[i] = i % 2 == 0 ? 2.0f : -2.0f;
  const auto model = windowed_model(false, true, g);
  Model ours(model, {8, 128, 2, 0, 256});
  expect_agreement(ours.ascend(), ascend_by_definition(model));
  EXPECT_TRUE(ours.listed(0));
}

TEST_F(CudaKernelsHaveNoRaces, InRowsThatABlockSumsAndThatAreCut) {
  for (const Format format : kFormats)
    for (const Asked& asked : {Asked{"centralized", true}, Asked{"all", true, true, true}})
      for (const auto& [row, cut] : std::vector<std::pair<int64_t, Cut>>{
               {100, {8, 240, 3, 0}}, {600, {64, 1300, 2, 0}}, {700, {64, 640, 3, 0}}, {33, {8, 16, 5, 1}}}) {
        Random random(6);
        const std::vector<Numbers> model = {
            layer_of(asked, format, 9, row, values_of(Values::Shifted, 9 * row, 1.0, random), random, 0.5)};
        expect_agreement(Model(model, cut).ascend(), ascend_by_definition(model));
      }
}

}  // namespace
}  // namespace steppe::kernels::cuda
