// How the eigenvalues of a loss's Hessian are spread.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include <steppe/sharpness/hessian.hpp>
#include <steppe/sharpness/krylov_basis.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Options of spectral_density().
struct SpectralDensityOptions {
  /// Number of random start vectors.
  TORCH_ARG(int64_t, vectors) = 10;
  /// Lanczos steps per vector.
  TORCH_ARG(int64_t, steps) = 80;
  /// Points of the grid that the density is given on.
  TORCH_ARG(int64_t, points) = 400;
  /// The standard deviation of the Gaussians that smooth the nodes, in units of the eigenvalues; 0: a hundredth of
  /// their range.
  TORCH_ARG(double, sigma) = 0.0;
  /// Of the random start vectors.
  TORCH_ARG(uint64_t, seed) = 0;
};

/// A distribution of eigenvalues: nodes with weights that add up to 1, and the same smoothed on a grid.
struct SpectralDensity {
  std::vector<double> nodes,  ///< eigenvalues
      weights;                ///< of the nodes; their sum is 1
  std::vector<double> grid,   ///< eigenvalues, evenly spaced
      density;                ///< at the grid's points; its integral is 1
  double sigma = 0.0;         ///< standard deviation of the Gaussians used
  int64_t products = 0;       ///< with the Hessian that were made

  /// The mean of lambda^order over all eigenvalues, tr(H^order) / parameters.
  double moment(int order) const {
    double sum = 0.0;
    for (size_t i = 0; i < nodes.size(); ++i) sum += weights[i] * std::pow(nodes[i], order);
    return sum;
  }
};

namespace detail {

inline void smooth(SpectralDensity& spectrum, int64_t points, double sigma) {
  const auto [low, high] = std::minmax_element(spectrum.nodes.begin(), spectrum.nodes.end());
  const double range = *high - *low, size = (std::max)(std::abs(*low), std::abs(*high));
  spectrum.sigma = sigma > 0.0 ? sigma : (range > 1e-12 * size ? 0.01 * range : (size > 0.0 ? 0.01 * size : 1.0));
  const double from = *low - 5.0 * spectrum.sigma, to = *high + 5.0 * spectrum.sigma;
  const double peak = 1.0 / (spectrum.sigma * std::sqrt(2.0 * std::acos(-1.0)));
  for (int64_t i = 0; i < points; ++i) {
    const double x = from + (to - from) * static_cast<double>(i) / static_cast<double>(points - 1);
    double sum = 0.0;
    for (size_t j = 0; j < spectrum.nodes.size(); ++j) {
      const double z = (x - spectrum.nodes[j]) / spectrum.sigma;
      sum += spectrum.weights[j] * peak * std::exp(-0.5 * z * z);
    }
    spectrum.grid.push_back(x);
    spectrum.density.push_back(sum);
  }
}

}  // namespace detail

/// Stochastic Lanczos quadrature: for each of some Rademacher vectors v, the eigenvalues of Lanczos' T are nodes and
/// the squared first entries of its eigenvectors weights, exact for v^T p(H) v with polynomials p up to degree 2 steps
/// - 1.
///
/// Cost: vectors * steps products; memory: steps + 1 flat vectors and those of a product.
///
///     const auto spectrum = sharpness::spectral_density(hessian, sharpness::SpectralDensityOptions().vectors(5));
///
/// Errors: counts under 1, fewer than 2 points, a negative sigma.
inline SpectralDensity spectral_density(const Hessian& hessian, const SpectralDensityOptions& options = {}) {
  TORCH_CHECK(options.vectors() > 0 && options.steps() > 0 && options.points() > 1,
              "steppe: a spectral density needs at least 1 vector, 1 step and 2 points, got ", options.vectors(), ", ",
              options.steps(), " and ", options.points());
  TORCH_CHECK(std::isfinite(options.sigma()) && options.sigma() >= 0.0, "steppe: sigma must be 0 or over, got ",
              options.sigma());
  const LossSurface& surface = hessian.surface();
  const int64_t steps = (std::min)(options.steps(), surface.numel());
  RandomVectors random(options.seed());
  SpectralDensity spectrum;
  for (int64_t i = 0; i < options.vectors(); ++i) {
    KrylovBasis krylov(hessian, steps, random.rademacher(surface.numel(), surface.vector_options()), 0);
    do {
      krylov.extend();
      ++spectrum.products;
      surface.tell("spectral density", i * steps + krylov.size(), options.vectors() * steps);
    } while (krylov.size() < steps && krylov.beta() > 0.0);  // at beta 0 the quadrature is exact
    const auto [values, rotation] = krylov.eigen();
    for (int64_t j = 0; j < krylov.size(); ++j) {
      const double first = rotation[0][j].item<double>();
      spectrum.nodes.push_back(values[j].item<double>());
      spectrum.weights.push_back(first * first / static_cast<double>(options.vectors()));
    }
  }
  detail::smooth(spectrum, options.points(), options.sigma());
  return spectrum;
}

}  // namespace sharpness
STEPPE_NAMESPACE_END
