// SPDX-License-Identifier: MIT
#include "simulation.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <cmath>

#include "gradient_step.hpp"

namespace statistics {

std::vector<int64_t> logarithmic_steps(int64_t iterations, int64_t count) {
  std::vector<int64_t> steps = {0};
  const double growth =
      std::log(static_cast<double>(iterations)) / static_cast<double>(std::max<int64_t>(count - 1, 1));
  for (int64_t i = 0; i < count; ++i) {
    const auto step = static_cast<int64_t>(std::llround(std::exp(growth * static_cast<double>(i))));
    if (step > steps.back() && step < iterations) steps.push_back(step);
  }
  if (iterations > 0) steps.push_back(iterations);
  return steps;
}

Simulated simulated(const KernelRegression& problem, const Descent& descent, double sigma, int64_t draws,
                    const std::vector<int64_t>& steps, uint64_t seed, const std::function<bool()>& go_on) {
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor noise = at::randn({problem.size(), draws}, random, at::TensorOptions(at::kDouble));
  const at::Tensor y = problem.truth.unsqueeze(1) + noise * sigma;
  at::Tensor fitted = at::zeros_like(y);
  Simulated result;
  int64_t k = 0;
  for (const int64_t step : steps) {
    for (; k < step; ++k) {
      if (!go_on()) return result;
      fitted = stepped(problem, descent, fitted, y);
    }
    result.steps.push_back(step);
    result.at.push_back(decomposed(fitted.t(), problem.truth));
  }
  return result;
}

double largest_deviation(const Simulated& simulated, const Curves& curves, double sigma) {
  double largest = 0.0;
  for (size_t i = 0; i < simulated.steps.size(); ++i) {
    const auto k = static_cast<size_t>(simulated.steps[i]);
    const double variance = sigma * sigma * curves.unit_variance[k];
    const Decomposition& seen = simulated.at[i];
    const auto compare = [&](const Estimate& estimate, double expected) {
      // Without noise error and difference are both due to rounding.
      const double rounding = 1e-12 * (1.0 + expected);
      largest = std::max(largest, std::abs(estimate.value - expected) / std::max(estimate.error, rounding));
    };
    compare(seen.bias, curves.bias[k]);
    compare(seen.variance, variance);
    compare(seen.risk, curves.bias[k] + variance);
  }
  return largest;
}

double difference_of_trained_weights(const KernelRegression& problem, const Descent& descent, const at::Tensor& y,
                                     int64_t iterations) {
  const auto n = static_cast<double>(problem.size());
  const at::Tensor d = at::empty({problem.size()}, y.options());
  std::copy(problem.eigenvalues.begin(), problem.eigenvalues.end(), d.data_ptr<double>());
  const at::Tensor features = problem.basis * (d * n).sqrt();  // features features^T = K
  const at::Tensor w = at::zeros_like(y).set_requires_grad(true);
  torch::optim::SGD sgd({w}, torch::optim::SGDOptions(descent.eta));
  for (int64_t k = 0; k < iterations; ++k)
    gradient_step(sgd, descent.rho, [&] {
      sgd.zero_grad();
      const at::Tensor loss = (features.mv(w) - y).square().sum() / (2.0 * n);
      loss.backward();
      return loss;
    });
  const at::Tensor q = 1.0 - descent.eta * d * (1.0 + descent.rho * d);
  const at::Tensor shrunk = (1.0 - q.pow(static_cast<double>(iterations))) * problem.basis.t().mv(y);
  return (features.mv(w.detach()) - problem.basis.mv(shrunk)).abs().max().item<double>();
}

}  // namespace statistics
