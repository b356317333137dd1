// Every base optimizer times every method, by name.
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

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
};

/// An optimizer of any kind with what it tells about its last step.
struct AnyOptimizer {
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  std::function<at::Tensor()> sharpness;  ///< L(w + e) - L(w), undefined where not known; empty for a plain base
};

/// Errors: a name that does not exist; das for a model without tensorized layers, or over lbfgs.
AnyOptimizer make_optimizer(const OptimizerName& name, const torch::nn::Module& model,
                            const OptimizerSettings& settings);

/// loss() at w + rho * g / |g| for the gradients g that the parameters hold; the weights are w again afterwards.
double loss_uphill(const std::vector<at::Tensor>& parameters, double rho, const std::function<double()>& loss);

}  // namespace cifar
