// How far the loss rises within a ball around the weights.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/perturbation.hpp>
#include <steppe/sharpness/displaced.hpp>
#include <steppe/sharpness/hessian.hpp>
#include <steppe/sharpness/loss_surface.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

namespace detail {

/// The loss, which a sharpness needs to be finite.
inline double finite_loss(double loss) {
  TORCH_CHECK(std::isfinite(loss), "steppe: the loss is not finite at the weights as they are, it is ", loss,
              "; its sharpness is undefined");
  return loss;
}

inline double finite_norm(double norm) {
  TORCH_CHECK(std::isfinite(norm),
              "steppe: the gradient is not finite at the weights as they are, though the loss is; its norm is ", norm);
  return norm;
}

}  // namespace detail

/// What sam_sharpness() measures.
struct SamSharpness {
  double loss = 0.0;           ///< L(w)
  double perturbed = 0.0;      ///< L(w + e)
  double sharpness = 0.0;      ///< perturbed - loss
  double gradient_norm = 0.0;  ///< |g|_2 at w
};

/// L(w + rho g / N(g)) - L(w), the sharpness that SAM minimizes (arXiv 2010.01412), with the gradient of all batches
/// together.
///
/// Cost: one gradient and one loss; memory: two flat vectors. A zero gradient gives 0; a loss that is not finite at w +
/// e gives a sharpness that is not finite. Errors: rho that is negative or not finite, a loss or gradient that is not
/// finite at w.
///
///     sharpness::sam_sharpness(surface, /*rho=*/0.05).sharpness
inline SamSharpness sam_sharpness(const LossSurface& surface, double rho = 0.05) {
  const auto held = surface.hold();
  SamSharpness result;
  const at::Tensor gradient = surface.gradient(&result.loss);
  detail::finite_loss(result.loss);
  result.gradient_norm = detail::finite_norm(detail::two_norm(gradient));
  const Perturbation at(surface.params(), surface.parts(gradient), rho);
  result.perturbed = surface.loss();
  result.sharpness = result.perturbed - result.loss;
  return result;
}

/// Options of average_case_sharpness().
struct AverageCaseOptions {
  /// N(0, rho^2 |w|^2) where true, N(0, rho^2) where false.
  TORCH_ARG(bool, adaptive) = true;
  /// Number of random vectors e.
  TORCH_ARG(int64_t, draws) = 100;
  /// Of the random vectors.
  TORCH_ARG(uint64_t, seed) = 0;
};

/// The mean of L(w + e) - L(w) over e ~ N(0, rho^2 |w|^2), and its standard error (arXiv 2302.07011).
///
/// Cost: one loss per draw; memory: one copy of the parameters and two flat vectors. A loss that is not finite at one
/// of the draws makes the mean not finite. Errors: rho that is negative or not finite, no draws, a loss that is not
/// finite at w.
///
///     sharpness::average_case_sharpness(surface, /*rho=*/0.1).mean
inline Estimate average_case_sharpness(const LossSurface& surface, double rho, const AverageCaseOptions& options = {}) {
  TORCH_CHECK(std::isfinite(rho) && rho >= 0.0, "steppe: rho must be finite and at least 0, got ", rho);
  TORCH_CHECK(options.draws() > 0, "steppe: an average needs at least one draw, got ", options.draws());
  const auto held = surface.hold();
  const double loss = detail::finite_loss(surface.loss());
  RandomVectors random(options.seed());
  Displaced weights(surface.params());
  std::vector<double> rises;
  for (int64_t i = 0; i < options.draws(); ++i) {
    at::Tensor e = random.normal(surface.numel(), surface.vector_options());
    if (options.adaptive()) e.mul_(surface.flat(weights.saved()));
    weights.move_to(rho, surface.parts(e));
    rises.push_back(surface.loss() - loss);
    surface.tell("average-case sharpness", i + 1, options.draws());
  }
  if (std::all_of(rises.begin(), rises.end(), [](double rise) { return kernels::exact::is_zero(rise); }))
    surface.check_moves();
  return detail::estimate_of(rises);
}

/// Options of worst_case_sharpness().
struct WorstCaseOptions {
  /// The ball is |e / |w||_p <= rho where true, |e|_p <= rho where false.
  TORCH_ARG(bool, adaptive) = true;
  /// The norm of the ball: 2 or infinity.
  TORCH_ARG(double, p) = 2.0;
  /// Steps of the ascent, the first of length rho.
  TORCH_ARG(int64_t, steps) = 20;
  /// Whether the ascent runs on each batch separately and the rises are averaged (m-sharpness), or on all together.
  TORCH_ARG(bool, per_batch) = true;
  /// Of the random steps that are made where the gradient is zero.
  TORCH_ARG(uint64_t, seed) = 0;
};

namespace detail {

/// The unit step along which z grows fastest; a random one where the gradient is zero.
inline at::Tensor steepest(const at::Tensor& slope, double p, RandomVectors& random) {
  at::Tensor along = slope;
  double length = two_norm(along);
  if (kernels::exact::is_zero(length)) {
    along = random.normal(slope.size(0), slope.options());
    length = two_norm(along);
  }
  return std::isinf(p) ? along.sign() : along / length;
}

inline void project(at::Tensor& z, double p, double rho) {
  if (std::isinf(p)) {
    z.clamp_(-rho, rho);
    return;
  }
  const double length = two_norm(z);
  if (length > rho) z.mul_(rho / length);
}

/// Projected ascent in z = e / c. A step that does not raise the loss is undone and halved.
inline double highest_rise(const LossSurface& surface, double rho, const WorstCaseOptions& options) {
  RandomVectors random(options.seed());
  Displaced weights(surface.params());
  const at::Tensor w = surface.flat(weights.saved());
  const at::Tensor c = options.adaptive() ? w.abs() : at::ones_like(w);
  at::Tensor z = at::zeros_like(w), best_z, best_slope;
  double start = 0.0, best = -std::numeric_limits<double>::infinity(), step = rho;
  for (int64_t i = 0; i <= options.steps(); ++i) {
    weights.move_to(1.0, surface.parts(c * z));
    double loss = 0.0;
    at::Tensor slope = surface.gradient(&loss).mul_(c);
    if (i == 0) {
      start = finite_loss(loss);
      finite_norm(two_norm(slope));
    }
    if (std::isnan(loss) || (std::isinf(loss) && loss > 0.0)) return loss - start;
    if (!is_finite(slope)) return (std::max)(best, loss) - start;  // no direction to continue in
    if (loss > best) {
      best = loss;
      best_z = z.clone();
      best_slope = std::move(slope);
    } else {
      step *= 0.5;
    }
    z = best_z + steepest(best_slope, options.p(), random) * step;
    project(z, options.p(), rho);
  }
  return best - start;
}

}  // namespace detail

/// max L(w + e) - L(w) over |e / |w||_p <= rho by projected ascent (arXiv 2302.07011: 20 steps, batches of 128): a
/// lower bound of the maximum, never below 0. Weights that are 0 do not move if it is adaptive. A loss that is not
/// finite somewhere in the ball ends the ascent there: the result is that infinity or NaN.
///
/// Cost: steps + 1 gradients for each batch; memory: one copy of the parameters and about eight flat vectors. Errors:
/// rho that is negative or not finite, p other than 2 and infinity, no steps, a loss or gradient that is not finite at
/// w. That paper found no such measure to correlate well with generalization across settings.
///
///     sharpness::worst_case_sharpness(surface, /*rho=*/0.5).mean
inline Estimate worst_case_sharpness(const LossSurface& surface, double rho, const WorstCaseOptions& options = {}) {
  TORCH_CHECK(std::isfinite(rho) && rho >= 0.0, "steppe: rho must be finite and at least 0, got ", rho);
  TORCH_CHECK(kernels::exact::are_equal(options.p(), 2.0) || (std::isinf(options.p()) && options.p() > 0.0),
              "steppe: the worst case needs p = 2 or infinity, got ", options.p());
  TORCH_CHECK(options.steps() > 0, "steppe: the worst case needs at least one step, got ", options.steps());
  const auto held = surface.hold();
  if (!options.per_batch()) {
    Estimate whole;
    whole.mean = detail::highest_rise(surface, rho, options);
    whole.standard_error = std::nan("");
    whole.draws = 1;
    return whole;
  }
  std::vector<double> rises;
  const int64_t batches = static_cast<int64_t>(surface.samples().size());
  for (int64_t i = 0; i < batches; ++i) {
    rises.push_back(detail::highest_rise(surface.batch(static_cast<size_t>(i)), rho, options));
    surface.tell("worst-case sharpness", i + 1, batches);
  }
  return detail::estimate_of(rises);
}

}  // namespace sharpness
STEPPE_NAMESPACE_END
