// SPDX-License-Identifier: MIT
#include "fit.hpp"

#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace completion {
namespace {

at::Tensor rows(const std::vector<double>& values, int64_t columns) {
  return at::tensor(at::ArrayRef<double>(values), at::kDouble).reshape({-1, columns});
}

at::Tensor mask(const std::vector<double>& values, int64_t columns) { return rows(values, columns).ne(0); }

TEST(Fit, R2IsOneMinusTheErrorOverTheVarianceOnTheEntriesNamed) {
  const at::Tensor x = rows({1, 2, 3, 100}, 2), y = rows({1, 2, 5, -7}, 2);
  // On 1, 2, 3: error 4; about their mean 2: 2. The value of y at 100 does not count.
  EXPECT_DOUBLE_EQ(r_squared(x, y, mask({1, 1, 1, 0}, 2)), 1.0 - 4.0 / 2.0);
  // On 3, 100: error 4 + 107^2; about 51.5: 2 * 48.5^2.
  EXPECT_DOUBLE_EQ(r_squared(x, y, mask({0, 0, 1, 1}, 2)), 1.0 - (4.0 + 11449.0) / 4704.5);
}

TEST(Fit, R2IsOneForTheTruthAndNoughtForTheMean) {
  const at::Tensor x = rows({1, 2, 3, 6}, 2), all = mask({1, 1, 1, 1}, 2);
  EXPECT_DOUBLE_EQ(r_squared(x, x, all), 1.0);
  EXPECT_DOUBLE_EQ(r_squared(x, at::full_like(x, 3.0), all), 0.0);
}

TEST(Fit, R2IsUnknownWithoutEntriesOrVariance) {
  const at::Tensor x = rows({1, 1, 3, 6}, 2);
  EXPECT_TRUE(std::isnan(r_squared(x, x, mask({0, 0, 0, 0}, 2))));
  EXPECT_TRUE(std::isnan(r_squared(x, x, mask({1, 1, 0, 0}, 2))));
}

TEST(Fit, ASamplesErrorIsTheMeanOverItsOwnEntries) {
  const at::Tensor x = rows({0, 0, 0, 0, 0, 0}, 2), y = rows({1, 3, 2, 9, 5, 5}, 2);
  const at::Tensor seen = mask({1, 1, 1, 0, 0, 0}, 2);
  const std::vector<double> errors = sample_errors(x, y, seen);
  ASSERT_EQ(errors.size(), 3u);
  EXPECT_DOUBLE_EQ(errors[0], 5.0);
  EXPECT_DOUBLE_EQ(errors[1], 4.0);
  EXPECT_TRUE(std::isnan(errors[2]));
  EXPECT_EQ(sample_counts(seen), (std::vector<double>{2, 1, 0}));
}

TEST(Fit, ColumnMeansUseTheObservedEntriesOnly) {
  const at::Tensor x = rows({1, 10, 3, 20, 100, 30}, 2);
  const at::Tensor means = column_means(x, mask({1, 0, 1, 0, 0, 0}, 2));
  EXPECT_EQ(means.sizes(), x.sizes());
  EXPECT_DOUBLE_EQ(means[2][0].item<double>(), 2.0);
  // Nothing observed in the second column: the mean of all observed.
  EXPECT_DOUBLE_EQ(means[0][1].item<double>(), 2.0);
}

}  // namespace
}  // namespace completion
