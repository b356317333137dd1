// Base optimizers times methods, by name.
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "optimizer_name.hpp"

namespace cifar {

/// Hyper-parameters; what an optimizer does not have is ignored.
struct OptimizerSettings {
  double learning_rate = 0.1, momentum = 0.9, weight_decay = 5e-4;
  double rho = 0.05;
  double percentile = 0.95;  ///< of the methods that filter
  double alpha = 0.01;       ///< of das
  int64_t interval = 0;      ///< of looksam and every; 0: the method's own
  double tail_share = 0.3;   ///< of tail
  int64_t steps = 0;         ///< of the whole training, for tail, aesam and aelooksam
  int64_t epoch_steps = 0;   ///< of an epoch, for xsam
  bool fused = false;        ///< the base's step in one pass over memory, where the base has one
};

/// An optimizer of any kind with the report of its last step.
struct AnyOptimizer {
  using Closure = torch::optim::Optimizer::LossClosure;

  std::unique_ptr<torch::optim::Optimizer> optimizer;
  std::function<at::Tensor()> sharpness = {};  ///< L(w + e) - L(w), undefined where not known; empty for a plain base
  std::function<bool()> perturbed = {};        ///< whether it was made at perturbed weights; empty for a plain base
  /// A step for methods that evaluate losses at other weights: (pass, the loss of its batch alone). Empty for others.
  std::function<at::Tensor(const Closure& pass, const Closure& loss)> step_with_loss = {};
};

/// Errors: a name that does not exist, a method that its base does not have; das for a model without tensorized layers.
AnyOptimizer make_optimizer(const OptimizerName& name, const torch::nn::Module& model,
                            const OptimizerSettings& settings);

/// loss() at w + rho * g / |g| for the gradients g that the parameters hold; the weights are w again afterwards.
double loss_uphill(const std::vector<at::Tensor>& parameters, double rho, const std::function<double()>& loss);

}  // namespace cifar
