// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/sharpness/ball.hpp>
#include <torch/cuda.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "../errors.hpp"
#include "small_net.hpp"

namespace steppe::sharpness {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

TEST(Ball, SamSharpnessOfAQuadraticIsItsFormula) {
  const Quadratic quadratic({4.0, 3.0});  // w = 1, so g = d, N(g) = 5
  const SamSharpness found = sam_sharpness(LossSurface({quadratic.w}, [&] { return quadratic.loss(); }), 0.5);
  EXPECT_NEAR(found.loss, 3.5, 1e-14);
  EXPECT_NEAR(found.gradient_norm, 5.0, 1e-14);
  // w + e = (1.4, 1.3)
  EXPECT_NEAR(found.perturbed, 0.5 * (4 * 1.96 + 3 * 1.69), 1e-12);
  EXPECT_NEAR(found.sharpness, found.perturbed - 3.5, 1e-14);
}

TEST(Ball, SamSharpnessIsZeroWhereTheGradientIs) {
  const at::Tensor w = torch::zeros({3}, at::kDouble).requires_grad_(true);
  EXPECT_EQ(sam_sharpness(LossSurface({w}, [&] { return w.square().sum(); })).sharpness, 0.0);
}

TEST(Ball, AverageCaseOfAQuadraticIsHalfTheScaledTrace) {
  const at::Tensor w = torch::tensor({2.0, -1.0, 0.0}, at::kDouble).requires_grad_(true);
  const at::Tensor d = torch::tensor({12.0, 5.0, 7.0}, at::kDouble), centre = w.detach().clone();
  // At its minimum, where draws differ the least.
  const LossSurface surface({w}, [&] { return 0.5 * (d * (w - centre).square()).sum(); });
  const Estimate adaptive = average_case_sharpness(surface, 0.3, AverageCaseOptions().draws(4000));
  EXPECT_NEAR(adaptive.mean, 0.045 * 53.0, 4.0 * adaptive.standard_error);
  const Estimate plain = average_case_sharpness(surface, 0.3, AverageCaseOptions().draws(4000).adaptive(false));
  EXPECT_NEAR(plain.mean, 0.045 * 24.0, 4.0 * plain.standard_error);
  EXPECT_GT(plain.standard_error, 0.0);
  EXPECT_LT(plain.standard_error, 0.1);
  EXPECT_EQ(average_case_sharpness(surface, 0.3).mean, average_case_sharpness(surface, 0.3).mean);
}

TEST(Ball, WorstCaseOfAQuadraticIsItsMaximum) {
  const at::Tensor w = torch::tensor({2.0, -1.0, 0.0}, at::kDouble).requires_grad_(true);
  const at::Tensor d = torch::tensor({1.0, 9.0, 100.0}, at::kDouble), centre = w.detach().clone();
  // At its minimum the rise is (1/2) z^T C D C z with C = |w|: the largest of d w^2, 9, or of d itself, 100.
  const LossSurface minimum({w}, [&] { return 0.5 * (d * (w - centre).square()).sum(); });
  const auto worst = [&](const LossSurface& surface, const WorstCaseOptions& options) {
    return worst_case_sharpness(surface, 0.5, options).mean;
  };
  EXPECT_NEAR(worst(minimum, WorstCaseOptions().steps(100)), 0.125 * 9.0, 1e-6);
  EXPECT_NEAR(worst(minimum, WorstCaseOptions().steps(100).adaptive(false)), 0.125 * 100.0, 1e-6);
  EXPECT_NEAR(worst(minimum, WorstCaseOptions().p(inf)), 0.125 * 13.0, 1e-12);
  EXPECT_NEAR(worst(minimum, WorstCaseOptions().p(inf).adaptive(false)), 0.125 * 110.0, 1e-12);
  // A linear loss: rho |C g|.
  const LossSurface linear({w}, [&] { return (d * w).sum(); });
  EXPECT_NEAR(worst(linear, WorstCaseOptions()), 0.5 * std::sqrt(4.0 + 81.0), 1e-12);
  EXPECT_NEAR(worst(linear, WorstCaseOptions().p(inf)), 0.5 * 11.0, 1e-12);
}

TEST(Ball, AMaximumInsideTheBallIsFoundThoughTheFirstStepGoesBeyondIt) {
  const at::Tensor w = torch::ones({1}, at::kDouble).requires_grad_(true);
  const LossSurface surface({w}, [&] { return -(w - 1.1).square().sum(); });
  EXPECT_NEAR(worst_case_sharpness(surface, 0.5).mean, 0.01, 1e-6);
  EXPECT_NEAR(worst_case_sharpness(surface, 0.5, WorstCaseOptions().p(inf)).mean, 0.01, 1e-6);
}

TEST(Ball, WorstCaseIsNeverBelowSamsNorBelowZero) {
  SmallNet net;
  const LossSurface surface(*net.model, [&] { return net.loss(); });
  const double sam = sam_sharpness(surface, 0.3).sharpness;
  EXPECT_GT(sam, 0.0);
  EXPECT_GE(worst_case_sharpness(surface, 0.3, WorstCaseOptions().adaptive(false)).mean, sam);
  EXPECT_EQ(worst_case_sharpness(surface, 0.0).mean, 0.0);
}

TEST(Ball, WorstCaseIsTakenPerBatchAndAveraged) {
  const at::Tensor w = torch::ones({1}, at::kDouble).requires_grad_(true);
  SmallNet net;
  LossSurface surface(*net.model, std::vector<int64_t>{1, 1}, [&](size_t i) { return (i == 0 ? w : -w).sum(); });
  surface.only({w});
  const Estimate each = worst_case_sharpness(surface, 0.5);
  EXPECT_NEAR(each.mean, 0.5, 1e-12);  // each batch rises its own way
  EXPECT_EQ(each.draws, 2);
  EXPECT_NEAR(worst_case_sharpness(surface, 0.5, WorstCaseOptions().per_batch(false)).mean, 0.0, 1e-12);
}

TEST(Ball, NoSharpnessIsToldOfWhatIsNotFinite) {
  const at::Tensor w = torch::ones({2}, at::kDouble).requires_grad_(true);
  const auto each = [](const LossSurface& surface) {
    const auto not_adaptive = WorstCaseOptions().adaptive(false);
    return std::vector<std::string>{message_of([&] { sam_sharpness(surface, 0.5); }),
                                    message_of([&] { worst_case_sharpness(surface, 0.5, not_adaptive); }),
                                    message_of([&] { average_case_sharpness(surface, 0.5); })};
  };
  for (const double bad : {std::nan(""), inf})
    for (const std::string& message : each(LossSurface({w}, [&] { return (w * bad).sum(); })))
      EXPECT_NE(message.find("the loss is not finite at the weights"), std::string::npos) << message;
  // sqrt(0) is 0, its slope is not.
  const std::vector<std::string> messages = each(LossSurface({w}, [&] { return (w - w.detach()).sqrt().sum(); }));
  EXPECT_NE(messages[0].find("the gradient is not finite"), std::string::npos) << messages[0];
  EXPECT_NE(messages[1].find("the gradient is not finite"), std::string::npos) << messages[1];
  // Finite here, but not farther uphill.
  const LossSurface edge({w}, [&] { return w.sum() + (1.1 - w).sqrt().sum() * 0; });
  EXPECT_TRUE(std::isnan(sam_sharpness(edge, 0.5).sharpness));
  EXPECT_TRUE(std::isnan(worst_case_sharpness(edge, 0.5).mean));
  EXPECT_TRUE(std::isnan(average_case_sharpness(edge, 0.5).mean));
  const LossSurface pole({w}, [&] { return w.sum() + torch::where(w > 1.1, inf * w.detach(), 0 * w.detach()).sum(); });
  EXPECT_EQ(worst_case_sharpness(pole, 0.5).mean, inf);
}

TEST(Ball, ErrorsNameWhatIsWrong) {
  const Quadratic quadratic({1.0});
  const LossSurface surface({quadratic.w}, [&] { return quadratic.loss(); });
  const auto complains = [](const std::string& words, auto&& call) {
    const std::string message = message_of(call);
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  complains("got -1", [&] { sam_sharpness(surface, -1.0); });
  complains("got -1", [&] { average_case_sharpness(surface, -1.0); });
  complains("got -1", [&] { worst_case_sharpness(surface, -1.0); });
  complains("got 0", [&] { average_case_sharpness(surface, 1.0, AverageCaseOptions().draws(0)); });
  complains("got 3", [&] { worst_case_sharpness(surface, 1.0, WorstCaseOptions().p(3.0)); });
  complains("got 0", [&] { worst_case_sharpness(surface, 1.0, WorstCaseOptions().steps(0)); });
}

TEST(Ball, RisesOnAGpuAreThoseOfTheCpu_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  SmallNet here, there;
  there.to(at::kCUDA);
  const std::vector<at::Tensor> before = there.weights();
  const LossSurface expected(*here.model, [&] { return here.loss(); }),
      surface(*there.model, [&] { return there.loss(); });
  EXPECT_NEAR(sam_sharpness(surface, 0.3).sharpness, sam_sharpness(expected, 0.3).sharpness, 1e-8);
  EXPECT_NEAR(sam_sharpness(surface, 0.3).gradient_norm, sam_sharpness(expected, 0.3).gradient_norm, 1e-8);
  const AverageCaseOptions few = AverageCaseOptions().draws(5);
  EXPECT_NEAR(average_case_sharpness(surface, 0.3, few).mean, average_case_sharpness(expected, 0.3, few).mean, 1e-8);
  EXPECT_NEAR(worst_case_sharpness(surface, 0.3).mean, worst_case_sharpness(expected, 0.3).mean, 1e-8);
  there.expect_untouched(before);
}

}  // namespace
}  // namespace steppe::sharpness
