// SPDX-License-Identifier: MIT
#include "kernel_regression.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace statistics {
namespace {

constexpr double kPi = 3.14159265358979323846;

std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kDouble).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

}  // namespace

double KernelRegression::condition(const Descent& descent) const {
  return descent.eta * largest() * (1.0 + descent.rho * largest());
}

KernelRegression kernel_regression(const at::Tensor& points, const at::Tensor& truth, double bandwidth) {
  if (points.dim() != 1 || points.size(0) < 2 || points.sizes() != truth.sizes())
    throw std::runtime_error("kernel regression needs two or more points and a value of f* at each, got " +
                             std::to_string(points.numel()) + " points and " + std::to_string(truth.numel()) +
                             " values");
  KernelRegression problem;
  problem.points = points;
  problem.truth = truth;
  const at::Tensor gaps = points.unsqueeze(1) - points.unsqueeze(0);
  problem.kernel = at::exp(gaps * gaps * -bandwidth) / static_cast<double>(points.size(0));
  const auto [d, u] = at::linalg_eigh(problem.kernel);
  // Rounding makes some of the smallest ones negative; a kernel has no negative ones.
  problem.eigenvalues = values_of(d.flip({0}).clamp_min(0.0));
  problem.basis = u.flip({1});
  problem.theta = values_of(problem.basis.t().mv(truth));
  return problem;
}

KernelRegression sine_on_uniform_points(int64_t n, double bandwidth, uint64_t seed) {
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor drawn = at::rand({n}, random, at::TensorOptions(at::kDouble)) * 2.0 - 1.0;
  const at::Tensor points = std::get<0>(drawn.sort());
  return kernel_regression(points, at::sin(points * (2.0 * kPi)), bandwidth);
}

std::vector<double> Curves::risk(double sigma) const {
  std::vector<double> sum(bias.size());
  for (size_t k = 0; k < sum.size(); ++k) sum[k] = bias[k] + sigma * sigma * unit_variance[k];
  return sum;
}

Curves closed_form(const KernelRegression& problem, const Descent& descent, int64_t iterations) {
  const auto n = static_cast<double>(problem.size());
  Curves curves;
  curves.bias.assign(static_cast<size_t>(iterations) + 1, 0.0);
  curves.unit_variance = curves.bias;
  for (size_t i = 0; i < problem.eigenvalues.size(); ++i) {
    const double d = problem.eigenvalues[i], q = 1.0 - descent.eta * d * (1.0 + descent.rho * d);
    const double theta = problem.theta[i];
    double power = 1.0;  // q^k
    for (size_t k = 0; k < curves.bias.size(); ++k, power *= q) {
      curves.bias[k] += power * power * theta * theta / n;
      curves.unit_variance[k] += (1.0 - power) * (1.0 - power) / n;
    }
  }
  return curves;
}

at::Tensor stepped(const KernelRegression& problem, const Descent& descent, const at::Tensor& fitted,
                   const at::Tensor& y) {
  // A step of the weights along their gradient moves the fitted values along K/n (f - y).
  if (descent.rho == 0.0) return fitted - problem.kernel.matmul(fitted - y) * descent.eta;
  const at::Tensor perturbed = fitted + problem.kernel.matmul(fitted - y) * descent.rho;
  return fitted - problem.kernel.matmul(perturbed - y) * descent.eta;
}

Curves iterated(const KernelRegression& problem, const Descent& descent, int64_t iterations) {
  const auto n = static_cast<double>(problem.size());
  const at::Tensor units = at::eye(problem.size(), problem.kernel.options());
  at::Tensor mean = at::zeros_like(problem.truth), smoother = at::zeros_like(units);
  Curves curves;
  for (int64_t k = 0; k <= iterations; ++k) {
    curves.bias.push_back((mean - problem.truth).square().sum().item<double>() / n);
    curves.unit_variance.push_back(smoother.square().sum().item<double>() / n);
    mean = stepped(problem, descent, mean, problem.truth);
    smoother = stepped(problem, descent, smoother, units);
  }
  return curves;
}

}  // namespace statistics
