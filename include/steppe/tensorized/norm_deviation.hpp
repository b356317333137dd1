// How far apart the norms of a tensorized layer's cores are, and how SAM changes that.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// Layers whose weight is a product of cores, and the norms of these cores.
namespace tensorized {

/// The cores G_1..G_K of one tensorized layer (CP, Tucker, tensor train or ring, the two factors of LoRA) and their
/// gradients g_k at one point of training, by their squared Frobenius norms (arXiv 2508.10435). Float64, on the device
/// of the cores until read.
struct NormDeviation {
  at::Tensor core_squares;      ///< |G_k|^2, [K]
  at::Tensor gradient_squares;  ///< |g_k|^2, [K]; 0 for a core without a gradient

  /// Q = sum_k (|G_k|^2 - mean_i |G_i|^2)^2, 0-dim.
  at::Tensor deviation() const { return (core_squares - core_squares.mean()).square().sum(); }

  /// The same from pairs: Q = 1/(2K) sum_ij (|G_i|^2 - |G_j|^2)^2.
  at::Tensor deviation_by_pairs() const {
    const at::Tensor apart = core_squares.unsqueeze(0) - core_squares.unsqueeze(1);
    return apart.square().sum() / (2.0 * static_cast<double>(core_squares.numel()));
  }

  /// Cov_k(|G_k|^2, |g_k|^2), divided by K, 0-dim.
  at::Tensor covariance() const {
    return ((core_squares - core_squares.mean()) * (gradient_squares - gradient_squares.mean())).mean();
  }

  /// u = (sum_k |g_k|^2)^(-1/2), 0-dim; 0 where there is no gradient.
  at::Tensor inverse_gradient_norm() const {
    const at::Tensor sum = gradient_squares.sum();
    return sum.rsqrt().masked_fill(sum == 0, 0.0);
  }

  /// dQ/dt under the flow of SAM, to first order: 4 rho u K Cov_k(|G_k|^2, |g_k|^2). Under gradient flow it is 0. Q
  /// rises where the covariance is positive.
  at::Tensor predicted_rate(double rho) const {
    return covariance() * inverse_gradient_norm() * (4.0 * rho * static_cast<double>(core_squares.numel()));
  }
};

/// The deviation of one layer's cores, with the gradients that they have now. Reads every core and gradient once.
///
/// Errors: no cores, an undefined one, cores on several devices.
///
///     const auto seen = steppe::tensorized::norm_deviation({core1, core2, core3});
///     std::cout << seen.deviation().item<double>();
NormDeviation norm_deviation(const std::vector<at::Tensor>& cores);

/// Records the deviations of several layers over training. A record costs one read of the cores and their gradients and
/// a few numbers per layer; nothing waits for the device before deviations() or rates() are read.
///
///     steppe::tensorized::DeviationMonitor monitor({layer1->cores(), layer2->cores()});
///     for (...) { loss.backward(); monitor.record(); optimizer.step(); }
///     const at::Tensor q = monitor.deviations();  // [records, layers]
class DeviationMonitor {
 public:
  /// Errors: no layers, or a layer without cores.
  explicit DeviationMonitor(std::vector<std::vector<at::Tensor>> layers) : layers_(std::move(layers)) {
    TORCH_CHECK(!layers_.empty(), "steppe: a DeviationMonitor needs at least one layer's cores");
    for (size_t i = 0; i < layers_.size(); ++i)
      TORCH_CHECK(!layers_[i].empty(), "steppe: layer ", i, " of a DeviationMonitor has no cores");
  }

  /// Records the cores and gradients as they are now: call it after backward().
  void record() {
    std::vector<at::Tensor> deviations, rates;
    for (const std::vector<at::Tensor>& cores : layers_) {
      const NormDeviation seen = norm_deviation(cores);
      deviations.push_back(seen.deviation());
      rates.push_back(seen.predicted_rate(1.0));
    }
    deviations_.push_back(at::stack(deviations));
    rates_.push_back(at::stack(rates));
  }

  /// How many records there are.
  int64_t records() const { return static_cast<int64_t>(deviations_.size()); }
  /// Q, [records, layers].
  at::Tensor deviations() const { return rows(deviations_); }
  /// dQ/dt predicted for SAM of radius 1, [records, layers]; proportional to rho.
  at::Tensor rates() const { return rows(rates_); }

 private:
  at::Tensor rows(const std::vector<at::Tensor>& recorded) const {
    if (recorded.empty())
      return at::zeros({0, static_cast<int64_t>(layers_.size())}, at::TensorOptions().dtype(at::kDouble));
    return at::stack(recorded);
  }

  std::vector<std::vector<at::Tensor>> layers_;
  std::vector<at::Tensor> deviations_, rates_;
};

}  // namespace tensorized
STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/tensorized/norm_deviation.ipp>
#endif
