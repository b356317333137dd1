// The CUDA kernels, run on the host, against the definition: every recipe, format and way to cut the work.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/kernels/cuda/plan.hpp>
#include <steppe/kernels/cuda/thread_sum.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "expectations.hpp"
#include "host_model.hpp"
#include "model.hpp"

namespace steppe::kernels::cuda {
namespace {

TEST(CudaThreadSums, PairsOfFloatsHaveFortyBits) {
  Random random(23);
  for (const Values kind : {Values::Normal, Values::Shifted, Values::Grid, Values::OneHuge, Values::MostlyZero})
    for (const int64_t n : {1, 7, 64, 128}) {  // a thread reads 64 components of a chunk
      FloatPairSum sum, squares;
      long double exact_sum = 0.0L, exact_squares = 0.0L, magnitudes = 0.0L;
      for (const float x : values_of(kind, n, 0.3, random)) {
        sum.add(x);
        squares.add_square(x);
        exact_sum += x;
        exact_squares += static_cast<long double>(x) * x;
        magnitudes += std::fabs(static_cast<long double>(x));
      }
      SCOPED_TRACE(std::to_string(static_cast<int>(kind)) + ", " + std::to_string(n));
      ASSERT_TRUE(squares.is_in_range());
      // The low part has up to n 2^-24 of the sum, and is rounded n times: 2^-38 at most for 64, 2^-40 as a rule.
      const long double bound = 0x1p-46L + static_cast<long double>(n * n) * 0x1p-50L;
      EXPECT_LE(std::fabs(static_cast<long double>(sum.value()) - exact_sum), bound * magnitudes);
      EXPECT_LE(std::fabs(static_cast<long double>(squares.value()) - exact_squares), bound * exact_squares);
    }
}

TEST(CudaThreadSums, AreMadeInDoubleWhereSquaresLeaveTheRangeOfFloat) {
  int rounds = 0;
  const auto squares_of = [&rounds](const std::vector<float>& numbers) {
    Part part;
    rounds = 0;
    add_up<FloatPairSum>(part, [&](auto& sums) {
      ++rounds;
      for (const float x : numbers) sums.raw.add_square(x);
    });
    return part.raw;
  };
  const auto expected = [](const std::vector<float>& numbers) {
    double sum = 0.0;
    for (const float x : numbers) sum += static_cast<double>(x) * static_cast<double>(x);
    return sum;
  };
  const float inf = std::numeric_limits<float>::infinity(), least = std::numeric_limits<float>::denorm_min();
  for (const auto& [numbers, again] : std::vector<std::pair<std::vector<float>, bool>>{{{3.0f, -4.0f}, false},
                                                                                       {{0.0f, -0.0f}, false},
                                                                                       {{}, false},
                                                                                       {{1.0f, 1e-30f, least}, false},
                                                                                       {{1e-11f, 2e-11f}, false},
                                                                                       {{1e-13f, 2e-13f}, true},
                                                                                       {{1e-23f, 1e-23f}, true},
                                                                                       {{least, 0.0f}, true},
                                                                                       {{1e19f}, true},
                                                                                       {{3e38f, 3e38f}, true}}) {
    const double squares = squares_of(numbers);
    EXPECT_NEAR(squares, expected(numbers), 1e-13 * expected(numbers)) << expected(numbers);
    EXPECT_EQ(rounds, again ? 2 : 1) << expected(numbers);
  }
  Part plain;
  add_up<FloatPairSum>(plain, [](auto& sums) {
    for (const float x : {3e38f, 3e38f, -1e38f}) sums.sum.add(x);
  });
  EXPECT_NEAR(plain.sum, 5e38, 1e31);
  EXPECT_EQ(squares_of({1.0f, inf}), static_cast<double>(inf));
  EXPECT_TRUE(std::isnan(squares_of({1.0f, std::numeric_limits<float>::quiet_NaN()})));
}

class CudaKernels : public testing::TestWithParam<std::tuple<Asked, Format>> {
 protected:
  const Asked& asked() const { return std::get<0>(GetParam()); }
  Format format() const { return std::get<1>(GetParam()); }
};

TEST_P(CudaKernels, AgreeWithTheDefinition) {
  const std::vector<Cut> cuts = every_cut();
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const Cut& cut = cuts[seed % (cuts.size() - 2)];  // without the last two: their fibers are many
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::to_string(cut.threads) + " threads, chunks of " +
                 std::to_string(cut.chunk));
    const auto model = random_model(asked(), format(), seed);
    expect_agreement(HostModel(model, cut, seed).ascend(), ascend_by_definition(model));
    if (HasFatalFailure()) return;
  }
}

TEST_P(CudaKernels, TakeEverySizeAtEveryOffset) {
  for (int64_t size = 0; size <= 70; ++size) {
    SCOPED_TRACE("size " + std::to_string(size));
    Random random(static_cast<uint64_t>(size) + 1);
    const std::vector<Numbers> model = {
        layer_of(asked(), format(), 1, size, values_of(Values::Normal, size, 1.0, random), random, 0.5),
        layer_of(asked(), format(), size, 3, values_of(Values::Grid, size * 3, 1.0, random), random, 0.5)};
    const Outcome definition = ascend_by_definition(model);
    expect_agreement(HostModel(model, {4, 20, 2, size % 8}, 1).ascend(), definition);
    if (HasFatalFailure()) return;
  }
}

TEST_P(CudaKernels, GiveTheSameBitsForEveryNumberOfBlocksAndEveryAscent) {
  const auto model = random_model(asked(), format(), 7);
  HostModel first(model, {8, 24, 1, 0});
  const Outcome outcome = first.ascend();
  // Tickets and histograms are empty again.
  expect_same_bits(first.ascend(), outcome);
  for (const int64_t blocks : {2, 5, 17})
    for (uint64_t seed = 1; seed <= 4; seed += 3)
      expect_same_bits(HostModel(model, {8, 24, blocks, 0}, seed).ascend(), outcome);
}

TEST_P(CudaKernels, MoveNothingWhereAGradientIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float poison : {inf, -inf, std::numeric_limits<float>::quiet_NaN()})
    for (const int64_t at : {0, 50, 99}) {
      auto model = random_model(asked(), format(), 8);
      Random random(3);
      model.push_back(layer_of(asked(), format(), 10, 10, values_of(Values::Normal, 100, 1.0, random), random, 0.5));
      model.back().g[static_cast<size_t>(at)] = poison;
      const Outcome outcome = HostModel(model, Cut()).ascend();
      EXPECT_FALSE(outcome.finite);
      EXPECT_EQ(outcome.perturbation_norm, 0.0);
      for (size_t k = 0; k < model.size(); ++k)
        for (size_t i = 0; i < model[k].w.size(); ++i) ASSERT_TRUE(same_bits(outcome.moved[k][i], model[k].w[i]));
    }
}

TEST_P(CudaKernels, MoveNothingAlongZero) {
  Random random(4);
  const std::vector<Numbers> model = {layer_of(asked(), format(), 5, 9, std::vector<float>(45, 0.0f), random, 0.5),
                                      layer_of(asked(), format(), 0, 4, {}, random, 0.5)};
  const Outcome outcome = HostModel(model, Cut()).ascend();
  EXPECT_TRUE(outcome.finite);
  EXPECT_EQ(outcome.gradient_norm, 0.0);
  expect_agreement(outcome, ascend_by_definition(model));
}

INSTANTIATE_TEST_SUITE_P(Every, CudaKernels,
                         testing::Combine(testing::ValuesIn(every_recipe()),
                                          testing::Values(Format::Float32, Format::BFloat16, Format::Half)),
                         [](const auto& each) {
                           return std::get<0>(each.param).name + "_" + name_of(std::get<1>(each.param));
                         });

TEST(CudaThreshold, IsExactForTiesPlateausAndEveryQuantile) {
  const Asked asked{"filtered", false, true};
  Random random(5);
  std::vector<std::vector<float>> hard;
  for (const Values kind :
       {Values::Normal, Values::AllEqual, Values::MostlyZero, Values::OneHuge, Values::Grid, Values::Denormal})
    hard.push_back(values_of(kind, 1000, 1.0, random));
  std::vector<float> neighbours, two_values, sorted;
  for (int i = 0; i < 1000; ++i) {
    // Distances that differ in their last bits only, over two bins of the second level.
    neighbours.push_back(1.0f + static_cast<float>(i % 7) * 0x1p-22f);
    two_values.push_back(i % 3 == 0 ? 2.0f : -1.0f);
    sorted.push_back(static_cast<float>(i) * 1e-3f);
  }
  hard.insert(hard.end(), {neighbours, two_values, sorted});
  for (size_t k = 0; k < hard.size(); ++k)
    for (const double quantile : {0.0, 0.05, 0.5, 0.9, 0.95, 0.999, 0.9999}) {
      SCOPED_TRACE("numbers " + std::to_string(k) + ", quantile " + std::to_string(quantile));
      for (const bool centralized : {false, true}) {
        Asked each = asked;
        each.quantile = quantile;
        each.centralized = centralized;
        const std::vector<Numbers> model = {layer_of(each, Format::Float32, 8, 125, hard[k], random, 3.0)};
        expect_agreement(HostModel(model, {8, 104, 3, 0}).ascend(), ascend_by_definition(model));
      }
    }
}

/// Layers large enough for a window, in chunks whose lists have room.
const Cut kWindowed = {8, 256, 3, 0, 256};

std::vector<Numbers> filtered_model(std::vector<float> g, double quantile, Format format = Format::Float32,
                                    bool scaled = false) {
  Random random(12);
  const auto n = static_cast<int64_t>(g.size());
  return {layer_of({"filtered", false, true, scaled, quantile}, format, 1, n, std::move(g), random, 2.0)};
}

TEST(CudaWindow, HoldsForGradientsAsTheyCome) {
  for (const Format format : {Format::Float32, Format::BFloat16, Format::Half})
    // The squares of the small ones are summed in double, in a second read that lists them again.
    for (const double scale : {0.01, 1e-14})
      for (const bool scaled : {false, true})
        for (uint64_t seed = 1; seed <= 5; ++seed) {
          if (format == Format::Half && scale < 1e-5) continue;
          Random random(seed);
          const auto model = filtered_model(values_of(Values::Normal, 4000, scale, random), 0.95, format, scaled);
          HostModel ours(model, kWindowed, seed);
          expect_agreement(ours.ascend(), ascend_by_definition(model));
          EXPECT_TRUE(ours.listed(0)) << name_of(format) << ", scale " << scale << ", seed " << seed;
        }
}

TEST(CudaWindow, BeginsAtTheSamplesQuantile) {
  Random random(19);
  const int64_t n = 4000, sample = kWindowed.sample, apart = n / (sample / kSampledLine);
  const std::vector<float> g = values_of(Values::Normal, n, 0.01, random);
  double sum = 0.0, squares = 0.0;
  std::vector<float> seen;
  for (int64_t i = 0; i < sample; ++i) {
    seen.push_back(g[static_cast<size_t>(i / kSampledLine * apart + i % kSampledLine)]);
    sum += static_cast<double>(seen.back());
    squares += static_cast<double>(seen.back()) * static_cast<double>(seen.back());
  }
  const double m = static_cast<double>(sample), mean = sum / m,
               reach = 5.0 * std::sqrt((squares / m - mean * mean) / m);
  // At least `wanted` of the sample lie beyond: a twentieth, 4.5 deviations of their number, and two.
  const auto wanted = static_cast<size_t>(0.05 * m + 4.5 * std::sqrt(0.05 * 0.95 * m) + 2.0);
  std::vector<double> distances;
  for (const float x : seen) distances.push_back(std::fabs(static_cast<double>(x) - mean));
  std::sort(distances.rbegin(), distances.rend());
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    HostModel ours(filtered_model(g, 0.95), kWindowed, seed);
    ours.ascend();
    const Window window = ours.window(0);
    EXPECT_NEAR(window.centre, mean, 1e-8);
    EXPECT_NEAR(window.reach, reach, 1e-6 * reach);
    EXPECT_NEAR(window.low + 2.0 * reach, distances[wanted - 1], 1e-4 * distances[wanted - 1]) << seed;
    EXPECT_GT(window.sure, window.low + 2.0f * window.reach);
  }
}

TEST(CudaWindow, IsLeftWhereItProvesNothing) {
  Random random(13);
  // Hardly anything is beyond a plateau, or everything; quantiles at which most would be listed.
  for (const auto& [kind, quantile] : std::vector<std::pair<Values, double>>{
           {Values::AllEqual, 0.95}, {Values::Zero, 0.95}, {Values::MostlyZero, 0.9}, {Values::Normal, 0.3}}) {
    const auto model = filtered_model(values_of(kind, 4000, 1.0, random), quantile);
    HostModel ours(model, kWindowed);
    expect_agreement(ours.ascend(), ascend_by_definition(model));
    EXPECT_FALSE(ours.listed(0)) << static_cast<int>(kind);
  }
}

/// Components that the sample sees, and all the others.
std::vector<float> sampled_and_others(int64_t n, int64_t sample, Random& random, double sampled, double others,
                                      double shift) {
  std::vector<float> g = values_of(Values::Normal, n, 1.0, random);
  const int64_t apart = n / (sample / kSampledLine);
  for (int64_t i = 0; i < n; ++i) {
    const bool seen = i % apart < kSampledLine && i / apart < sample / kSampledLine;
    float& x = g[static_cast<size_t>(i)];
    x = seen ? x * static_cast<float>(sampled) : x * static_cast<float>(others) + static_cast<float>(shift);
  }
  return g;
}

TEST(CudaWindow, ASampleThatMisleadsIsFoundOut) {
  Random random(14);
  for (const auto& [sampled, others, shift] : std::vector<std::tuple<double, double, double>>{
           {1.0, 0.01, 0.0}, {0.01, 1.0, 0.0}, {1.0, 1.0, 0.7}, {1.0, 1.0, -3.0}, {1.0, 0.9, 0.02}, {1.0, 0.6, 0.0}})
    for (const double quantile : {0.9, 0.95, 0.99}) {
      SCOPED_TRACE(std::to_string(sampled) + ", " + std::to_string(others) + " + " + std::to_string(shift));
      const auto model = filtered_model(sampled_and_others(4000, 256, random, sampled, others, shift), quantile);
      HostModel ours(model, kWindowed);
      expect_agreement(ours.ascend(), ascend_by_definition(model));
      // Too few beyond the window, or another mean: nothing is proved.
      if (others == 0.01 || shift < -1.0) {
        EXPECT_FALSE(ours.listed(0));
      }
    }
}

TEST(CudaWindow, ListsThatAreFullAreReadInTheGradient) {
  Random random(15);
  for (const Format format : {Format::Float32, Format::BFloat16}) {
    std::vector<float> g = values_of(Values::Normal, 4096, 0.1, random);
    // The largest components side by side, more than a list can hold, outside of the sample.
    for (size_t i = 1050; i < 1210; ++i) g[i] = (i % 2 == 0 ? 1.0f : -1.0f) * (1.0f + static_cast<float>(i) * 1e-3f);
    const auto model = filtered_model(g, 0.95, format);
    HostModel ours(model, kWindowed);
    expect_agreement(ours.ascend(), ascend_by_definition(model));
    EXPECT_TRUE(ours.listed(0));
  }
}

TEST(CudaWindow, ALayerWithoutATailKeepsItsDirectionBeyondItToo) {
  Random random(18);
  std::vector<float> g = values_of(Values::Normal, 4000, 1.0, random);
  // The largest distance is reached by many.
  for (float& x : g) x = x < 0.0f ? x * 0.5f : std::min(x, 2.5f);
  const auto model = filtered_model(g, 0.997);
  HostModel ours(model, kWindowed);
  const Outcome outcome = ours.ascend();
  expect_agreement(outcome, ascend_by_definition(model));
  EXPECT_TRUE(ours.listed(0));
  EXPECT_EQ(outcome.kept_share, 1.0);
}

TEST(CudaWindow, ScratchIsUsedAgainByAnotherGradient) {
  Random random(16);
  std::vector<Numbers> model = filtered_model(values_of(Values::Normal, 3000, 1.0, random), 0.95);
  Random more(17);
  model.push_back(layer_of({"f", false, true, false, 0.9}, Format::Half, 1, 100,
                           values_of(Values::Normal, 100, 1.0, more), more, 1.0));
  model.push_back(layer_of({"f", false, true, false, 0.99}, Format::Half, 1, 2000,
                           values_of(Values::Shifted, 2000, 1.0, more), more, 1.0));
  HostModel ours(model, kWindowed);
  expect_agreement(ours.ascend(), ascend_by_definition(model));
  const Outcome again = ours.ascend();
  expect_agreement(again, ascend_by_definition(model));
  for (const int64_t blocks : {1, 2, 7}) {
    Cut cut = kWindowed;
    cut.blocks = blocks;
    expect_same_bits(HostModel(model, cut, 5).ascend(), again);
  }
}

TEST(CudaThreshold, ALayerWithoutATailKeepsItsDirection) {
  Random random(6);
  const std::vector<Numbers> model = {
      layer_of({"f", false, true}, Format::Float32, 4, 25, std::vector<float>(100, -0.7f), random, 1.0)};
  const Outcome outcome = HostModel(model, Cut()).ascend();
  EXPECT_EQ(outcome.kept_share, 1.0);
  EXPECT_NEAR(outcome.perturbation_norm, 1.0, 1e-12);
}

TEST(CudaAscent, WeightsThatDoNotMoveKeepTheirBits) {
  Random random(7);
  const Asked asked{"filtered", false, true, false, 0.9};
  std::vector<Numbers> model = {
      layer_of(asked, Format::Float32, 4, 100, values_of(Values::Normal, 400, 1.0, random), random, 1.0)};
  model[0].w.assign(400, -0.0f);
  const Outcome outcome = HostModel(model, Cut()).ascend();
  int still = 0;
  for (const float w : outcome.moved[0]) still += same_bits(w, -0.0f);
  EXPECT_EQ(still, 360);
}

TEST(CudaAscent, ANormTooSmallToDivideByCountsAsZero) {
  Random random(8);
  const std::vector<Numbers> model = {
      layer_of({"plain"}, Format::Float32, 1, 9, std::vector<float>(9, 1e-42f), random, 5.0)};
  const Outcome outcome = HostModel(model, Cut()).ascend();
  EXPECT_GT(outcome.gradient_norm, 0.0);
  EXPECT_EQ(outcome.perturbation_norm, 0.0);
  EXPECT_EQ(outcome.moved[0], model[0].w);
}

TEST(CudaAscent, FormatsAndRecipesMix) {
  Random random(9);
  std::vector<Numbers> model;
  int64_t rows = 3;
  for (const Asked& asked : every_recipe())
    for (const Format format : {Format::Half, Format::Float32, Format::BFloat16}) {
      rows = rows % 11 + 2;
      model.push_back(
          layer_of(asked, format, rows, 17, values_of(Values::Normal, rows * 17, 0.1, random), random, 0.5));
    }
  for (const Cut& cut : every_cut()) expect_agreement(HostModel(model, cut).ascend(), ascend_by_definition(model));
}

/// Layers of one format: the recipe's beside plain ones, in sizes around those of vectors, batches and chunks.
std::vector<Numbers> mixed_model(const std::vector<Asked>& recipes, Format format) {
  Random random(21);
  std::vector<Numbers> model;
  for (const Asked& asked : recipes)
    for (const auto& [rows, row] :
         std::vector<std::pair<int64_t, int64_t>>{{20, 16}, {31, 9}, {2, 256}, {1, 5}, {3, 1}})
      for (const Asked& each : {asked, Asked{"plain"}})
        model.push_back(
            layer_of(each, format, rows, row, values_of(Values::Shifted, rows * row, 1.0, random), random, 0.5));
  return model;
}

TEST(CudaVariants, TakeLayersThatNeedLess) {
  for (const Format format : {Format::Float32, Format::BFloat16, Format::Half})
    for (const Asked& asked : every_recipe())
      for (const Cut& cut : every_cut()) {
        SCOPED_TRACE(asked.name + ", " + name_of(format) + ", " + std::to_string(cut.threads) + " threads");
        const auto model = mixed_model({asked}, format);
        expect_agreement(HostModel(model, cut).ascend(), ascend_by_definition(model));
      }
}

TEST(CudaVariants, TakeLayersThatNeedDifferentThings) {
  for (const Format format : {Format::Float32, Format::BFloat16, Format::Half})
    for (const Cut& cut : every_cut()) {
      const auto model = mixed_model(every_recipe(), format);
      expect_agreement(HostModel(model, cut).ascend(), ascend_by_definition(model));
    }
}

/// The variant for the layers, in words.
std::string variant_for(Plan& plan, const std::vector<Layer>& layers) {
  plan.describe(layers);
  std::string name;
  with_variant<DeviceSum>(plan.needs(), [&](auto variant) {
    using Variant = decltype(variant);
    name = std::is_same_v<typename Variant::Format, float>      ? "float32"
           : std::is_same_v<typename Variant::Format, BFloat16> ? "bfloat16"
           : std::is_same_v<typename Variant::Format, Half>     ? "half"
                                                                : "any";
    name += Variant::kCentralizes ? " centralizes" : "";
    name += Variant::kFilters ? " filters" : "";
    name += Variant::kScales ? " scales" : "";
  });
  return name;
}

TEST(CudaVariants, FollowFromTheLayers) {
  Plan plan;
  for (const Format format : {Format::Float32, Format::BFloat16, Format::Half}) {
    Layer plain;
    plain.format = format;
    plain.size = 60;
    Layer centralized = plain, filtered = plain, scaled = plain;
    centralized.row = 6;
    filtered.filtered = true;
    scaled.scaled = true;
    const std::string name = name_of(format);
    EXPECT_EQ(variant_for(plan, {plain, plain}), name);
    EXPECT_EQ(variant_for(plan, {plain, centralized}), name + " centralizes");
    EXPECT_EQ(variant_for(plan, {filtered, plain}), name + " filters");
    EXPECT_EQ(variant_for(plan, {plain, scaled}), name + " scales");
    EXPECT_EQ(variant_for(plan, {scaled, centralized}), name + " centralizes filters scales");
    Layer other = plain;
    other.format = format == Format::Half ? Format::Float32 : Format::Half;
    EXPECT_EQ(variant_for(plan, {plain, other}), "any centralizes filters scales");
    EXPECT_EQ(variant_for(plan, {other, plain, plain}), "any centralizes filters scales");
    EXPECT_EQ(variant_for(plan, {plain, plain}), name) << "after layers that need more";
  }
}

TEST(CudaRowMeans, AgreeForRowsOfEveryLength) {
  const Asked centralized{"centralized", true}, all{"all", true, true, true};
  for (const int64_t row : {1, 2, 3, 4, 8, 31, 32, 33, 64, 129, 136, 1000, 1001, 2048, 2056, 5001, 16384, 16385, 33000})
    for (const Format format : {Format::Float32, Format::BFloat16, Format::Half})
      for (const Cut& cut :
           {Cut{256, kChunk, 2, 0}, Cut{256, kChunk, 2, 1, 64, true}, Cut{32, 1024, 3, 0}, Cut{8, 240, 2, 0}}) {
        SCOPED_TRACE("rows of " + std::to_string(row) + ", " + name_of(format) + ", " + std::to_string(cut.threads) +
                     " threads, offset " + std::to_string(cut.offset));
        Random random(static_cast<uint64_t>(row));
        const int64_t rows = row < 300 ? 301 / row + 20 : row < 3000 ? 17 : 2;
        const std::vector<Numbers> model = {layer_of(row % 2 == 0 ? centralized : all, format, rows, row,
                                                     values_of(Values::Shifted, rows * row, 1.0, random), random, 0.5)};
        expect_agreement(HostModel(model, cut).ascend(), ascend_by_definition(model));
        if (HasFatalFailure()) return;
      }
}

TEST(CudaAscent, TakesAHandfulOfLaunches) {
  const auto launches = [](const Asked& asked, int64_t row) {
    Random random(10);
    HostModel model(
        {layer_of(asked, Format::Float32, 3, row, values_of(Values::Normal, 3 * row, 1.0, random), random, 0.5)},
        {8, 24, 3, 0});
    model.ascend();
    return model.launches();
  };
  EXPECT_EQ(launches({"plain"}, 20), 2);
  EXPECT_EQ(launches({"centralized", true}, 20), 2);
  EXPECT_EQ(launches({"centralized", true}, 30), 3);
  EXPECT_EQ(launches({"scaled", false, false, true}, 20), 2);
  EXPECT_EQ(launches({"filtered", false, true}, 20), 6);
  EXPECT_EQ(launches({"filtered", false, true}, 100), 7);
  EXPECT_EQ(launches({"all", true, true, true}, 30), 7);
}

TEST(CudaPlan, ChunksCoverLayersOfMoreThanFourGigabytesOnce) {
  const int64_t big = (int64_t{1} << 32) + 12345;
  for (const int64_t row : {int64_t{0}, int64_t{9}, int64_t{20000}, big}) {
    Layer layer;
    layer.size = row == 0 ? big : big / row * row;
    layer.row = row;
    Plan plan(kChunk);
    plan.describe({layer});
    Entry entry;
    std::memcpy(&entry, plan.table().data(), sizeof(entry));
    ASSERT_EQ(entry.chunks, plan.chunks());
    int64_t end = 0;
    for (int64_t chunk = 0; chunk < entry.chunks; ++chunk) {
      const Span span = entry.cut.span(chunk);
      ASSERT_EQ(span.begin, end);
      ASSERT_GT(span.end, span.begin);
      ASSERT_LE(span.end - span.begin, kChunk);
      if (row > kChunk) {
        ASSERT_EQ(span.begin / row, (span.end - 1) / row);
      } else if (row > 0) {
        ASSERT_EQ(span.begin % row, 0);
      }
      end = span.end;
    }
    EXPECT_EQ(end, layer.size);
  }
}

TEST(CudaPlan, RefusesFloat64) {
  Layer layer;
  layer.format = Format::Float64;
  EXPECT_THROW(Plan().describe({Layer(), layer}), std::invalid_argument);
}

TEST(CudaPlan, EqualLayersHaveEqualTables) {
  Random random(11);
  const auto model = random_model({"all", true, true, true}, Format::Half, 3);
  std::vector<Layer> layers;
  for (const Numbers& numbers : model) layers.push_back(numbers.layer);
  Plan first, second;
  first.describe(layers);
  second.describe({Layer()});
  second.describe(layers);
  EXPECT_EQ(first.table(), second.table());
  layers[0].out = &layers;
  layers[0].rho = 1.0;
  second.describe(layers);
  EXPECT_NE(first.table(), second.table());
}

}  // namespace
}  // namespace steppe::kernels::cuda
