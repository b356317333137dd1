// Bias, variance and risk of predictions, estimated from repeated draws of the noise.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include "presentation/spread.hpp"

namespace statistics {

struct Estimate {
  double value = presentation::kUnknown;
  double error = presentation::kUnknown;  ///< standard error, by the jackknife over the draws
};

struct Decomposition {
  Estimate bias;  ///< squared, of the mean prediction; corrected for the number of draws
  Estimate variance, risk;
};

/// Means over the points (columns) of `predictions` (draws x points) against `target` (points).
/// Unbiased: bias^2 averages (f_i - t)(f_j - t) over pairs of draws, so that bias^2 + variance is the risk, and bias^2
/// can be negative. The errors are unknown below three draws.
/// Errors: fewer than two draws, shapes that do not fit.
Decomposition decomposed(const at::Tensor& predictions, const at::Tensor& target);

}  // namespace statistics
