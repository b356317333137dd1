// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/perturbation.hpp>
#include <steppe/tensorized/norm_deviation.hpp>
#include <torch/cuda.h>
#include <torch/types.h>

#include <cmath>
#include <string>
#include <vector>

#include "../errors.hpp"

namespace steppe::tensorized {
namespace {

at::Tensor core(at::Tensor value) { return value.to(at::kDouble).requires_grad_(); }

/// A CP model of a fixed tensor: homogeneous of degree one in each of its three cores.
struct CpFit {
  CpFit() {
    torch::manual_seed(3);
    cores = {core(torch::randn({4, 2})), core(2 * torch::randn({3, 2})), core(0.5 * torch::randn({5, 2}))};
    target = torch::randn({4, 3, 5}, at::kDouble);
  }
  void backward() const {
    for (const at::Tensor& each : cores) each.mutable_grad() = at::Tensor();
    (at::einsum("ir,jr,kr->ijk", {cores[0], cores[1], cores[2]}) - target).square().sum().div(2).backward();
  }
  std::vector<at::Tensor> gradients() const {
    backward();
    return {cores[0].grad(), cores[1].grad(), cores[2].grad()};
  }
  /// dQ/dt of the flow dG_k/dt = -along_k.
  double rate(const std::vector<at::Tensor>& along) const {
    const at::Tensor squares = norm_deviation(cores).core_squares;
    double sum = 0.0;
    for (size_t k = 0; k < cores.size(); ++k)
      sum += 2.0 * (squares[static_cast<int64_t>(k)] - squares.mean()).item<double>() * -2.0 *
             (cores[k].detach() * along[k]).sum().item<double>();
    return sum;
  }

  std::vector<at::Tensor> cores;
  at::Tensor target;
};

TEST(NormDeviation, IsTheSpreadOfTheSquaredNorms) {
  const std::vector<at::Tensor> cores = {core(torch::full({1}, 1.0)), core(torch::full({1}, 2.0)),
                                         core(torch::full({1}, -3.0))};
  const NormDeviation seen = norm_deviation(cores);
  EXPECT_TRUE(seen.core_squares.equal(torch::tensor({1.0, 4.0, 9.0}, at::kDouble)));
  EXPECT_NEAR(seen.deviation().item<double>(), 294.0 / 9.0, 1e-12);
  EXPECT_TRUE(seen.gradient_squares.eq(0).all().item<bool>());
  EXPECT_EQ(seen.predicted_rate(0.1).item<double>(), 0.0);
}

TEST(NormDeviation, ItsTwoFormsAgree) {
  const CpFit fit;
  const NormDeviation seen = norm_deviation(fit.cores);
  EXPECT_NEAR(seen.deviation().item<double>() / seen.deviation_by_pairs().item<double>(), 1.0, 1e-12);
}

TEST(NormDeviation, CovarianceIsDividedByTheNumberOfCores) {
  const std::vector<at::Tensor> cores = {core(torch::full({1}, 1.0)), core(torch::full({1}, 2.0))};
  cores[0].mutable_grad() = torch::full({1}, 3.0, at::kDouble);
  cores[1].mutable_grad() = torch::full({1}, 1.0, at::kDouble);
  const NormDeviation seen = norm_deviation(cores);
  // |G|^2 = 1, 4 and |g|^2 = 9, 1.
  EXPECT_NEAR(seen.covariance().item<double>(), -1.5 * 4.0, 1e-12);
  EXPECT_NEAR(seen.predicted_rate(0.5).item<double>(), 4.0 * 0.5 * 2.0 * -6.0 / std::sqrt(10.0), 1e-12);
}

TEST(NormDeviation, GradientFlowConservesIt) {
  const CpFit fit;
  const double size = norm_deviation(fit.cores).deviation().item<double>();
  EXPECT_NEAR(fit.rate(fit.gradients()) / size, 0.0, 1e-12);
}

TEST(NormDeviation, TheFlowOfSamChangesItAsPredictedToFirstOrder) {
  const CpFit fit;
  const auto error_at = [&fit](double rho) {
    const std::vector<at::Tensor> gradients = fit.gradients();
    const double predicted = norm_deviation(fit.cores).predicted_rate(rho).item<double>();
    std::vector<at::Tensor> moved;
    {
      const Perturbation at(fit.cores, gradients, rho);
      moved = fit.gradients();
    }
    return std::abs(fit.rate(moved) / predicted - 1.0);
  };
  EXPECT_LT(error_at(1e-4), 1e-3);
  EXPECT_NEAR(error_at(1e-3) / error_at(1e-4), 10.0, 0.5);
}

TEST(DeviationMonitor, RecordsEveryLayerAtEveryStep) {
  const CpFit first, second;
  second.cores[0].detach().mul_(3);
  DeviationMonitor monitor({first.cores, second.cores});
  EXPECT_EQ(monitor.deviations().sizes(), (std::vector<int64_t>{0, 2}));
  first.backward();
  monitor.record();
  const double before = norm_deviation(first.cores).deviation().item<double>();
  first.cores[0].detach().mul_(2);
  monitor.record();
  EXPECT_EQ(monitor.records(), 2);
  EXPECT_EQ(monitor.deviations()[0][0].item<double>(), before);
  EXPECT_NE(monitor.deviations()[1][0].item<double>(), before);
  EXPECT_EQ(monitor.deviations()[0][1].item<double>(), monitor.deviations()[1][1].item<double>());
  EXPECT_EQ(monitor.rates()[0][0].item<double>() != 0.0, true);
  EXPECT_EQ(monitor.rates()[0][1].item<double>(), 0.0);
}

TEST(NormDeviation, BadCoresAreNamed) {
  EXPECT_NE(message_of([] { norm_deviation({}); }).find("needs the cores of a layer, got none"), std::string::npos);
  EXPECT_NE(message_of([] {
              norm_deviation({torch::ones({1}), at::Tensor()});
            }).find("core 1 of 2 is an undefined"),
            std::string::npos);
  EXPECT_NE(message_of([] { DeviationMonitor({{torch::ones({1})}, {}}); }).find("layer 1"), std::string::npos);
}

TEST(NormDeviation, OnAGpuIsThatOfTheCpuAndStaysThere_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  CpFit here, there;
  for (at::Tensor& each : there.cores) each = core(each.detach().to(at::kCUDA));
  there.target = there.target.to(at::kCUDA);
  here.backward();
  there.backward();
  const NormDeviation expected = norm_deviation(here.cores), seen = norm_deviation(there.cores);
  EXPECT_TRUE(seen.deviation().is_cuda());
  EXPECT_TRUE(at::allclose(seen.deviation().cpu(), expected.deviation(), 1e-10));
  EXPECT_TRUE(at::allclose(seen.predicted_rate(0.1).cpu(), expected.predicted_rate(0.1), 1e-10));
  DeviationMonitor monitor({there.cores});
  for (int i = 0; i < 2; ++i) monitor.record();
  EXPECT_TRUE(at::allclose(monitor.deviations().cpu(), expected.deviation().expand({2, 1}), 1e-10));
}

}  // namespace
}  // namespace steppe::tensorized
