// Diagnostics of the last step.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// Diagnostics of one step, as tensors that stay on the device: only reading one (`.item<double>()`) synchronizes.
///
/// Tensors are undefined where there is nothing to report: no perturbation in this step, or no known loss.
struct Report {
  bool perturbed = false;        ///< a pass was made at w + e; false on plain steps
  double perturbed_share = 0.0;  ///< of all steps so far
  at::Tensor loss;               ///< L(w); undefined where the only pass was made at w + e
  at::Tensor perturbed_loss;     ///< L(w + e)
  at::Tensor sharpness;          ///< L(w + e) - L(w)
  at::Tensor gradient_norm;      ///< |g| over all groups that count in the norm; of what the ascent starts from, where
                                 ///< that is an average or a momentum
  at::Tensor perturbation_norm;  ///< |e|
  at::Tensor unclipped_norm;     ///< of the final gradients before clip_grad_norm()
  at::Tensor kept_share;         ///< of the components that are filtered; 1 without a filter

  std::vector<at::Tensor> layers;      ///< the parameters that took part, in the order of the groups; beside them:
  at::Tensor layer_gradient_norm;      ///< 1-D
  at::Tensor layer_perturbation_norm;  ///< 1-D
  at::Tensor layer_kept_share;         ///< 1-D
};

STEPPE_NAMESPACE_END
