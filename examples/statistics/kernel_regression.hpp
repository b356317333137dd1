// Kernel regression with a fixed design, where every iteration of GD and SAM has a closed form.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace statistics {

/// Steps of un-normalised SAM, w <- w - eta * grad L(w + rho * grad L(w)); gradient descent where rho is 0.
struct Descent {
  std::string name;
  double eta, rho;
};

/// y = f* + noise at n fixed points; the loss is |f - y|^2 / (2 n) and the start is 0. All tensors are float64.
///
/// In eigenvectors of K/n = U diag(d) U^T, with theta = U^T f*, the fitted values after k steps are
/// f_k = U (1 - q^k) U^T y with q_i = 1 - eta d_i (1 + rho d_i). The example's derivation; its setting is that of
/// arXiv 2302.11836.
struct KernelRegression {
  at::Tensor points;                ///< n, ascending
  at::Tensor truth;                 ///< f* at the points
  at::Tensor kernel;                ///< K/n
  at::Tensor basis;                 ///< U, a column per eigenvalue
  std::vector<double> eigenvalues;  ///< d, the largest first
  std::vector<double> theta;

  int64_t size() const { return truth.size(0); }
  double largest() const { return eigenvalues.front(); }
  /// eta d_1 (1 + rho d_1). Up to 1 no q_i is negative, and the inequalities between SAM and GD are proven.
  double condition(const Descent& descent) const;
};

/// The kernel exp(-bandwidth |x - x'|^2). Errors: fewer than two points, shapes that differ.
KernelRegression kernel_regression(const at::Tensor& points, const at::Tensor& truth, double bandwidth);

/// f*(x) = sin(2 pi x) at n points drawn uniformly from (-1, 1).
KernelRegression sine_on_uniform_points(int64_t n, double bandwidth, uint64_t seed);

/// Of the fitted values against f*, at k = 0, 1, ...; the variance for noise of deviation 1.
struct Curves {
  std::vector<double> bias, unit_variance;  ///< bias is squared

  /// bias^2 + sigma^2 * variance at every k
  std::vector<double> risk(double sigma) const;
};

/// Bias^2(k) = sum q_i^(2k) theta_i^2 / n, Var(k) = sigma^2 sum (1 - q_i^k)^2 / n, for k = 0 .. iterations.
Curves closed_form(const KernelRegression& problem, const Descent& descent, int64_t iterations);

/// One step on fitted values, without the eigenvectors. Both may be n or n x draws.
at::Tensor stepped(const KernelRegression& problem, const Descent& descent, const at::Tensor& fitted,
                   const at::Tensor& y);

/// The same as closed_form() by taking the steps: on f* for the bias, on every unit vector for the variance.
Curves iterated(const KernelRegression& problem, const Descent& descent, int64_t iterations);

}  // namespace statistics
