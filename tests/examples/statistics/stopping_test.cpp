// SPDX-License-Identifier: MIT
#include "statistics/stopping.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "statistics/kernel_study.hpp"

namespace statistics {
namespace {

TEST(Stopping, TheBestStopIsWhatASearchOfEveryStepFinds) {
  const KernelRegression problem = sine_on_uniform_points(40, 5.0, 4);
  for (const Descent& method : methods_of(problem, 1.0, 0.5)) {
    const std::vector<double> steps = iterated(problem, method, 600).risk(0.5);
    size_t best = 0;
    for (size_t k = 0; k < steps.size(); ++k)
      if (steps[k] < steps[best]) best = k;
    ASSERT_GT(best, 0U);
    ASSERT_LT(best, 600U) << "inside";
    const Stop stop = best_stop(closed_form(problem, method, 600).risk(0.5));
    EXPECT_EQ(stop.k, best) << method.name;
    EXPECT_NEAR(stop.risk, steps[best], 1e-12);
  }
}

TEST(Stopping, OfEqualStepsTheFirstIsTheBest) {
  EXPECT_EQ(best_stop({3.0, 1.0, 2.0, 1.0}).k, 1U);
  EXPECT_THROW(best_stop({}), std::runtime_error);
}

TEST(Stopping, StretchesSayWhereEachIsAhead) {
  const auto all = stretches({9.0, 1.0, 1.0, 3.0, 2.0, 2.0}, {0.0, 2.0, 2.0, 2.0, 2.0, 5.0});
  EXPECT_EQ(stretches_of(all, Ahead::First), "1 to 2, 5");
  EXPECT_EQ(stretches_of(all, Ahead::Second), "3");
  EXPECT_EQ(stretches_of(all, Ahead::Neither), "4");
  EXPECT_EQ(stretches_of({}, Ahead::First), "none");
}

TEST(Stopping, TheShorterCurveEndsTheComparison) {
  EXPECT_EQ(stretches_of(stretches({0.0, 1.0, 1.0}, {0.0, 2.0}), Ahead::First), "1");
}

}  // namespace
}  // namespace statistics
