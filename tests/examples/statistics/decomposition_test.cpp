// SPDX-License-Identifier: MIT
#include "statistics/decomposition.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

namespace statistics {
namespace {

TEST(Decomposition, OfTwoDrawsIsWhatPaperAndPencilGive) {
  // Errors 1, 3 and 2, -2: pairs 1*2 and 3*(-2) per point.
  const at::Tensor predictions = at::tensor({1.0, 3.0, 2.0, -2.0}, at::kDouble).view({2, 2});
  const Decomposition parts = decomposed(predictions, at::zeros({2}, at::kDouble));
  EXPECT_DOUBLE_EQ(parts.bias.value, (1.0 * 2.0 + 3.0 * -2.0) / 2.0);
  EXPECT_DOUBLE_EQ(parts.risk.value, (1.0 + 9.0 + 4.0 + 4.0) / 4.0);
  EXPECT_DOUBLE_EQ(parts.variance.value, (0.5 + 12.5) / 2.0) << "the sample variances";
  EXPECT_TRUE(std::isnan(parts.bias.error)) << "nothing is left to compare with";
}

TEST(Decomposition, EqualDrawsHaveNoVariance) {
  const at::Tensor predictions = at::tensor({1.5, -1.0}, at::kDouble).expand({4, 2});
  const Decomposition parts = decomposed(predictions, at::tensor({1.0, 1.0}, at::kDouble));
  EXPECT_DOUBLE_EQ(parts.bias.value, (0.25 + 4.0) / 2.0);
  EXPECT_NEAR(parts.variance.value, 0.0, 1e-15);
  EXPECT_NEAR(parts.risk.error, 0.0, 1e-15);
}

TEST(Decomposition, ErrorsAreThoseThatRepetitionShows) {
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(uint64_t{11});
  const at::Tensor target = at::linspace(-1.0, 1.0, 6, at::TensorOptions(at::kDouble));
  constexpr int64_t kRepetitions = 400;
  at::Tensor values = at::empty({kRepetitions, 3}, at::kDouble), errors = at::empty({kRepetitions, 3}, at::kDouble);
  for (int64_t i = 0; i < kRepetitions; ++i) {
    const at::Tensor draws = target * 0.5 + at::randn({40, 6}, random, at::TensorOptions(at::kDouble)) * 0.7;
    const Decomposition parts = decomposed(draws, target);
    values[i] = at::tensor({parts.bias.value, parts.variance.value, parts.risk.value}, at::kDouble);
    errors[i] = at::tensor({parts.bias.error, parts.variance.error, parts.risk.error}, at::kDouble);
  }
  const at::Tensor means = values.mean(0), deviations = values.std(0), stated = errors.mean(0);
  const double bias = (target * 0.5).square().mean().item<double>();
  const double expected[3] = {bias, 0.49, bias + 0.49};
  for (int64_t part = 0; part < 3; ++part) {
    const double deviation = deviations[part].item<double>();
    EXPECT_NEAR(means[part].item<double>(), expected[part], 4.0 * deviation / std::sqrt(double{kRepetitions})) << part;
    EXPECT_NEAR(stated[part].item<double>() / deviation, 1.0, 0.15) << part;
  }
}

TEST(Decomposition, NeedsTwoDrawsAtThePointsOfTheTarget) {
  EXPECT_THROW(decomposed(at::zeros({1, 3}), at::zeros({3})), std::runtime_error);
  EXPECT_THROW(decomposed(at::zeros({4, 3}), at::zeros({2})), std::runtime_error);
}

}  // namespace
}  // namespace statistics
