// SPDX-License-Identifier: MIT
#include "statistics/kernel_regression.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "statistics/kernel_study.hpp"

namespace statistics {
namespace {

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0.0;
  for (size_t k = 0; k < a.size(); ++k) largest = std::max(largest, std::abs(a[k] - b[k]));
  return largest;
}

TEST(KernelRegression, ClosedFormAndIterationAgree) {
  for (const double rho : {0.0, 0.5, 1.0, 4.0})
    for (const double eta : {0.1, 0.5, 1.0, 1.5}) {
      const KernelRegression problem = sine_on_uniform_points(100, 5.0, 3);
      const Descent sam = methods_of(problem, rho, eta)[kSam];
      const Curves closed = closed_form(problem, sam, 500), steps = iterated(problem, sam, 500);
      EXPECT_LT(largest_difference(closed.bias, steps.bias), 1e-12) << rho << " " << eta;
      EXPECT_LT(largest_difference(closed.unit_variance, steps.unit_variance), 1e-12) << rho << " " << eta;
    }
}

TEST(KernelRegression, OfTwoPointsIsWhatPaperAndPencilGive) {
  // K = [[1, e], [e, 1]] with e = exp(-5): K/2 has the eigenvalues (1 ± e)/2, on (1, 1) and (1, -1).
  const double e = std::exp(-5.0), d = (1.0 + e) / 2.0, eta = 0.7, rho = 0.3, q = 1.0 - eta * d * (1.0 + rho * d);
  const double d2 = (1.0 - e) / 2.0, q2 = 1.0 - eta * d2 * (1.0 + rho * d2);
  const KernelRegression problem =
      kernel_regression(at::tensor({0.0, 1.0}, at::kDouble), at::tensor({2.0, 2.0}, at::kDouble), 5.0);
  ASSERT_EQ(problem.eigenvalues.size(), 2U);
  EXPECT_NEAR(problem.largest(), d, 1e-15);
  EXPECT_NEAR(problem.condition({"SAM", eta, rho}), eta * d * (1.0 + rho * d), 1e-15);
  const Curves curves = closed_form(problem, {"SAM", eta, rho}, 3);
  ASSERT_EQ(curves.bias.size(), 4U);
  for (int k = 0; k < 4; ++k) {
    const auto at = static_cast<size_t>(k);
    EXPECT_NEAR(curves.bias[at], 4.0 * std::pow(q, 2 * k), 1e-14);
    EXPECT_NEAR(curves.unit_variance[at], (std::pow(1.0 - std::pow(q, k), 2) + std::pow(1.0 - std::pow(q2, k), 2)) / 2,
                1e-14);
    EXPECT_NEAR(curves.risk(3.0)[at], curves.bias[at] + 9.0 * curves.unit_variance[at], 1e-14);
  }
}

TEST(KernelRegression, UnderTheConditionSamHasNoLargerBiasAndNoSmallerVarianceAtEveryStep) {
  for (uint64_t seed = 0; seed < 5; ++seed)
    for (const double rho : {0.1, 1.0, 10.0})
      for (const double eta : {0.05, 0.5, 1.0}) {
        const KernelRegression problem = sine_on_uniform_points(60, 5.0, seed);
        const std::vector<Descent> methods = methods_of(problem, rho, eta);
        EXPECT_NEAR(problem.condition(methods[kSam]), eta, 1e-12);
        const Curves gd = closed_form(problem, methods[kGd], 2000), sam = closed_form(problem, methods[kSam], 2000);
        EXPECT_EQ(count_larger(sam.bias, gd.bias), 0U) << seed << " " << rho << " " << eta;
        EXPECT_EQ(count_larger(gd.unit_variance, sam.unit_variance), 0U) << seed << " " << rho << " " << eta;
      }
}

TEST(KernelRegression, WithoutTheConditionTheInequalityFails) {
  // Nearly all of a constant lies along the first eigenvector, where q of SAM is -0.95.
  const at::Tensor points = sine_on_uniform_points(60, 5.0, 0).points;
  const KernelRegression problem = kernel_regression(points, at::ones_like(points), 5.0);
  const std::vector<Descent> methods = methods_of(problem, 1.0, 1.95);
  EXPECT_GT(problem.condition(methods[kSam]), 1.9);
  const Curves gd = closed_form(problem, methods[kGd], 200), sam = closed_form(problem, methods[kSam], 200);
  EXPECT_GT(count_larger(sam.bias, gd.bias), 0U);
  EXPECT_GT(count_larger(gd.unit_variance, sam.unit_variance), 0U);
}

TEST(KernelRegression, WithoutNoiseSamIsNeverWorse) {
  const KernelRegression problem = sine_on_uniform_points(100, 5.0, 1);
  const std::vector<Descent> methods = methods_of(problem, 1.0, 0.5);
  EXPECT_EQ(count_larger(closed_form(problem, methods[kSam], 3000).risk(0.0),
                         closed_form(problem, methods[kGd], 3000).risk(0.0)),
            0U);
}

TEST(KernelRegression, AtTheBestStopTheGapIsSmallWhileSamIsWellAheadBefore) {
  const KernelRegression problem = sine_on_uniform_points(100, 5.0, 0);
  const std::vector<Descent> methods = methods_of(problem, 1.0, 0.5);
  const Curves gd = closed_form(problem, methods[kGd], 10000), sam = closed_form(problem, methods[kSam], 10000);
  for (const double sigma : {0.1, 0.25, 0.5, 1.0}) {
    const std::vector<double> gd_risk = gd.risk(sigma), sam_risk = sam.risk(sigma);
    EXPECT_LT(std::abs(best_stop(sam_risk).risk / best_stop(gd_risk).risk - 1.0), 3e-3) << sigma;
    for (size_t k = 1; k <= 50; ++k) EXPECT_LT(sam_risk[k], gd_risk[k]) << sigma << " " << k;
  }
}

TEST(KernelRegression, NeedsAValueForEachPoint) {
  EXPECT_THROW(kernel_regression(at::zeros({3}, at::kDouble), at::zeros({2}, at::kDouble), 5.0), std::runtime_error);
  EXPECT_THROW(kernel_regression(at::zeros({1}, at::kDouble), at::zeros({1}, at::kDouble), 5.0), std::runtime_error);
}

TEST(KernelStudy, CountsWhatIsLargerBeyondRounding) {
  EXPECT_EQ(count_larger({1.0, 2.0, 3.0 + 1e-15, 1e-16}, {1.0, 1.0, 3.0, 0.0}), 1U);
}

}  // namespace
}  // namespace statistics
