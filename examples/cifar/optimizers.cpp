// SPDX-License-Identifier: MIT
#include "optimizers.hpp"

#include <steppe/perturbation.hpp>

#include <torch/optim/adagrad.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <stdexcept>
#include <string>

#include "methods_over.hpp"

namespace cifar {
namespace {

/// Empty for what does not exist.
AnyOptimizer made(const OptimizerName& name, const torch::nn::Module& model, const OptimizerSettings& settings) {
  using namespace torch::optim;
  const double lr = settings.learning_rate, decay = settings.weight_decay;
  const std::string& method = name.method;
  if (name.base == "adam") return over_adam(method, model, settings);
  if (name.base == "adamw") return over_adamw(method, model, settings);
  if (name.base == "sgd") {
    const auto options = SGDOptions(lr).momentum(settings.momentum).weight_decay(decay);
    return methods_over<steppe::Fused<SGD>>(options, model, settings).all(method);
  }
  if (name.base == "rmsprop") {
    const auto options = RMSpropOptions(lr).momentum(settings.momentum).weight_decay(decay);
    return methods_over<steppe::Fused<RMSprop>>(options, model, settings).most(method);
  }
  if (name.base == "adagrad") {
    const auto options = AdagradOptions(lr).weight_decay(decay);
    return methods_over<steppe::Fused<Adagrad>>(options, model, settings).most(method);
  }
  if (name.base == "lbfgs") {
    const auto options = LBFGSOptions(lr).max_iter(4).history_size(10);
    return methods_over<LBFGS>(options, model, settings).everywhere(method);
  }
  return {};
}

}  // namespace

AnyOptimizer make_optimizer(const OptimizerName& name, const torch::nn::Module& model,
                            const OptimizerSettings& settings) {
  name.check();
  AnyOptimizer any = made(name, model, settings);
  if (!any.optimizer) throw std::runtime_error("there is no optimizer '" + name.base + "+" + name.method + "'");
  return any;
}

double loss_uphill(const std::vector<at::Tensor>& parameters, double rho, const std::function<double()>& loss) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
  const steppe::Perturbation uphill(parameters, gradients, rho);
  return loss();
}

}  // namespace cifar
