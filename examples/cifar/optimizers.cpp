// SPDX-License-Identifier: MIT
#include "optimizers.hpp"

#include <steppe/optimizers.hpp>
#include <steppe/perturbation.hpp>

#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <stdexcept>
#include <type_traits>
#include <unordered_set>
#include <utility>

#include "models.hpp"

namespace cifar {
namespace {

namespace ascent = steppe::ascent;
using torch::nn::Module;

template <class Optimizer, class... Arguments>
AnyOptimizer sharpness_aware(const Arguments&... arguments) {
  auto optimizer = std::make_unique<Optimizer>(arguments...);
  const Optimizer* seen = optimizer.get();
  return {std::move(optimizer), [seen] { return seen->report().sharpness; }};
}

/// The cores of every tensorized layer are a group, all other parameters one that is not scaled.
template <class Base, class BaseOptions>
AnyOptimizer deviation_aware(const BaseOptions& base, const Module& model, double alpha) {
  std::vector<torch::optim::OptimizerParamGroup> groups;
  std::unordered_set<const void*> seen;
  for (const std::vector<at::Tensor>& cores : cores_of(model)) {
    groups.emplace_back(cores);
    for (const at::Tensor& core : cores) seen.insert(core.unsafeGetTensorImpl());
  }
  if (groups.empty()) throw std::runtime_error("das scales the cores of tensorized layers; give --tensorize a format");
  std::vector<at::Tensor> others;
  for (const at::Tensor& parameter : model.parameters())
    if (seen.count(parameter.unsafeGetTensorImpl()) == 0) others.push_back(parameter);
  groups.emplace_back(others);
  auto optimizer = std::make_unique<steppe::DAS<Base>>(groups, base, steppe::ScalingOptions().alpha(alpha));
  optimizer->scaling(groups.size() - 1).alpha(0.0);
  return {std::move(optimizer), nullptr};
}

template <class Base, class BaseOptions>
AnyOptimizer over(const BaseOptions& base, const std::string& method, const Module& model,
                  const OptimizerSettings& settings) {
  using CentralizedZSharp = steppe::SharpnessAware<Base, ascent::Chain<ascent::Centralize, ascent::ZScoreFilter>>;
  const auto options = steppe::Options().rho(settings.rho);
  const auto filter = ascent::ZScoreFilter().percentile(settings.percentile);
  if (method == "sam") return sharpness_aware<steppe::SAM<Base>>(model, base, options);
  if (method == "asam") return sharpness_aware<steppe::ASAM<Base>>(model, base, options);
  if (method == "zsharp") return sharpness_aware<steppe::ZSharp<Base>>(model, base, options, filter);
  if (method == "gcsam") return sharpness_aware<steppe::GCSAM<Base>>(model, base, options);
  if (method == "gczsharp")
    return sharpness_aware<CentralizedZSharp>(model, base, options, ascent::Chain(ascent::Centralize(), filter));
  if (method == "das") {
    if constexpr (std::is_same_v<Base, torch::optim::LBFGS>)
      throw std::runtime_error("das needs a base that evaluates its closure once a step, which lbfgs does not");
    else
      return deviation_aware<Base>(base, model, settings.alpha);
  }
  return {std::make_unique<Base>(model.parameters(), base), nullptr};
}

}  // namespace

AnyOptimizer make_optimizer(const OptimizerName& name, const Module& model, const OptimizerSettings& settings) {
  using namespace torch::optim;
  const double lr = settings.learning_rate, decay = settings.weight_decay;
  const std::string& method = name.method;
  if (name.base == "sgd")
    return over<SGD>(SGDOptions(lr).momentum(settings.momentum).weight_decay(decay), method, model, settings);
  if (name.base == "adam") return over<Adam>(AdamOptions(lr).weight_decay(decay), method, model, settings);
  if (name.base == "adamw") return over<AdamW>(AdamWOptions(lr).weight_decay(decay), method, model, settings);
  if (name.base == "rmsprop")
    return over<RMSprop>(RMSpropOptions(lr).momentum(settings.momentum).weight_decay(decay), method, model, settings);
  if (name.base == "adagrad") return over<Adagrad>(AdagradOptions(lr).weight_decay(decay), method, model, settings);
  if (name.base == "lbfgs") return over<LBFGS>(LBFGSOptions(lr).max_iter(4).history_size(10), method, model, settings);
  throw std::runtime_error("there is no base optimizer '" + name.base + "'");
}

double loss_uphill(const std::vector<at::Tensor>& parameters, double rho, const std::function<double()>& loss) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
  const steppe::Perturbation uphill(parameters, gradients, rho);
  return loss();
}

}  // namespace cifar
