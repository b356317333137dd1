// Monte Carlo simulation of kernel regression: the noise is drawn, and the steps are taken.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "decomposition.hpp"
#include "kernel_regression.hpp"

namespace statistics {

/// 0, 1, 2, 4, ... evenly on a logarithmic axis, about `count` of them, with the last iteration.
std::vector<int64_t> logarithmic_steps(int64_t iterations, int64_t count);

struct Simulated {
  std::vector<int64_t> steps;
  std::vector<Decomposition> at;  ///< one for each of `steps`
};

/// Trains on `draws` draws of normal noise of deviation sigma, and evaluates the fitted values at `steps` (ascending).
/// go_on() is called at every step; once it returns false, the rest is missing.
Simulated simulated(
    const KernelRegression& problem, const Descent& descent, double sigma, int64_t draws,
    const std::vector<int64_t>& steps, uint64_t seed, const std::function<bool()>& go_on = [] { return true; });

/// The largest |simulated - closed form| in standard errors, over bias^2, variance and risk at every step.
double largest_deviation(const Simulated& simulated, const Curves& curves, double sigma);

/// The largest difference between the closed form's fitted values for one y and those of weights that are trained by
/// torch::optim::SGD, the gradient of SAM being taken inside a steppe::Perturbation.
double difference_of_trained_weights(const KernelRegression& problem, const Descent& descent, const at::Tensor& y,
                                     int64_t iterations);

}  // namespace statistics
