// SPDX-License-Identifier: MIT
#include "decomposition.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <stdexcept>
#include <string>

namespace statistics {
namespace {

/// An estimate from all draws, and its jackknife error from the estimates that leave out one draw each.
Estimate estimate(double all, const at::Tensor& without_one) {
  const auto draws = static_cast<double>(without_one.numel());
  if (draws < 3.0) return {all, presentation::kUnknown};
  const double squares = (without_one - without_one.mean()).square().sum().item<double>();
  return {all, std::sqrt((draws - 1.0) / draws * squares)};
}

}  // namespace

Decomposition decomposed(const at::Tensor& predictions, const at::Tensor& target) {
  if (predictions.dim() != 2 || predictions.size(0) < 2 || target.dim() != 1 || predictions.size(1) != target.size(0))
    throw std::runtime_error("bias and variance need two or more draws of predictions at the points of the target");
  const at::Tensor errors = predictions.to(at::kDouble) - target.to(at::kDouble);
  const auto draws = static_cast<double>(errors.size(0)), points = static_cast<double>(errors.size(1));
  const at::Tensor sum = errors.sum(0), squares = errors.square().sum(1);  // per point; per draw
  const auto pairs = [&](const auto& of_sum, const auto& of_squares, double count) {
    return (of_sum - of_squares) / (count * (count - 1.0) * points);
  };
  const at::Tensor total = squares.sum();
  const at::Tensor bias = pairs(sum.square().sum(), total, draws), risk = total / (draws * points);
  const at::Tensor bias_without = pairs((sum - errors).square().sum(1), total - squares, draws - 1.0);
  const at::Tensor risk_without = (total - squares) / ((draws - 1.0) * points);
  Decomposition result;
  result.bias = estimate(bias.item<double>(), bias_without);
  result.risk = estimate(risk.item<double>(), risk_without);
  result.variance = estimate((risk - bias).item<double>(), risk_without - bias_without);
  return result;
}

}  // namespace statistics
