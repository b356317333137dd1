// SPDX-License-Identifier: MIT
#include "statistics/simulation.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "statistics/kernel_study.hpp"

namespace statistics {
namespace {

TEST(Simulation, LiesWithinFourOfItsOwnStandardErrors) {
  const KernelRegression problem = sine_on_uniform_points(100, 5.0, 0);
  for (const Descent& method : methods_of(problem, 1.0, 0.5)) {
    const Curves curves = closed_form(problem, method, 300);
    for (const double sigma : {0.0, 0.25, 1.0}) {
      const Simulated seen = simulated(problem, method, sigma, 400, {0, 1, 3, 10, 30, 100, 300}, 7);
      EXPECT_EQ(seen.at.size(), 7U);
      EXPECT_LT(largest_deviation(seen, curves, sigma), 4.0) << method.name << " " << sigma;
    }
  }
}

TEST(Simulation, IsWithinTwoPercentWithManyDraws) {
  const KernelRegression problem = sine_on_uniform_points(100, 5.0, 0);
  const Descent sam = methods_of(problem, 1.0, 0.5)[kSam];
  const Curves curves = closed_form(problem, sam, 100);
  const Simulated seen = simulated(problem, sam, 0.5, 20000, {10, 100}, 1);
  for (size_t i = 0; i < 2; ++i) {
    const auto k = static_cast<size_t>(seen.steps[i]);
    EXPECT_NEAR(seen.at[i].bias.value, curves.bias[k], 0.02 * curves.bias[k]);
    EXPECT_NEAR(seen.at[i].variance.value, 0.25 * curves.unit_variance[k], 0.02 * 0.25 * curves.unit_variance[k]);
  }
}

TEST(Simulation, SeesAnotherMethodsCurvesAsWrong) {
  const KernelRegression problem = sine_on_uniform_points(100, 5.0, 0);
  const std::vector<Descent> methods = methods_of(problem, 1.0, 0.5);
  const Simulated gd = simulated(problem, methods[kGd], 0.25, 400, {3, 10, 30}, 7);
  EXPECT_GT(largest_deviation(gd, closed_form(problem, methods[kSam], 30), 0.25), 4.0);
}

TEST(Simulation, EndsWhenItIsToldTo) {
  const KernelRegression problem = sine_on_uniform_points(10, 5.0, 0);
  int asked = 0;
  const Simulated seen = simulated(problem, {"GD", 0.1, 0.0}, 1.0, 5, {0, 2, 50}, 7, [&] { return ++asked < 10; });
  EXPECT_EQ(seen.steps, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(seen.at.size(), 2U);
}

TEST(Simulation, WeightsTrainedByLibTorchAndSteppeFollowTheClosedForm) {
  const KernelRegression problem = sine_on_uniform_points(50, 5.0, 2);
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(uint64_t{5});
  const at::Tensor y = problem.truth + at::randn({50}, random, at::TensorOptions(at::kDouble)) * 0.3;
  for (const Descent& method : methods_of(problem, 1.0, 0.5))
    EXPECT_LT(difference_of_trained_weights(problem, method, y, 200), 1e-12) << method.name;
}

TEST(Simulation, StepsAreEvenOnALogarithmicAxisAndEndAtTheEnd) {
  EXPECT_EQ(logarithmic_steps(16, 5), (std::vector<int64_t>{0, 1, 2, 4, 8, 16}));
  EXPECT_EQ(logarithmic_steps(1, 5), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(logarithmic_steps(3, 40), (std::vector<int64_t>{0, 1, 2, 3}));
}

}  // namespace
}  // namespace statistics
