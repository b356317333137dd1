// SPDX-License-Identifier: MIT
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>

#include "methods_over.hpp"

namespace cifar {

AnyOptimizer over_adam(const std::string& method, const torch::nn::Module& model, const OptimizerSettings& settings) {
  const auto options = torch::optim::AdamOptions(settings.learning_rate).weight_decay(settings.weight_decay);
  return methods_over<steppe::Fused<torch::optim::Adam>>(options, model, settings).all(method);
}

AnyOptimizer over_adamw(const std::string& method, const torch::nn::Module& model, const OptimizerSettings& settings) {
  const auto options = torch::optim::AdamWOptions(settings.learning_rate).weight_decay(settings.weight_decay);
  return methods_over<steppe::Fused<torch::optim::AdamW>>(options, model, settings).all(method);
}

}  // namespace cifar
