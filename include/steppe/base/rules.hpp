// How the fused update of each optimizer of LibTorch is read from its own options and state.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>

#include <steppe/kernels/update_rule.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace base {

/// A parameter's state as kernels see it. Null: the optimizer keeps no such value.
struct StateFields {
  at::Tensor* kept[kernels::kKept] = {};
  int64_t* step = nullptr;
};

/// For each optimizer: its State; its kind; the rule that a group's options stand for; the fields of a state; whether
/// states are made at the first step. Void: it has no fused update.
template <class Optimizer, class = void>
struct Rules {
  using State = void;
};

template <class Optimizer>
struct Rules<Optimizer, std::enable_if_t<std::is_base_of_v<torch::optim::SGD, Optimizer>>> {
  using State = torch::optim::SGDParamState;
  static constexpr auto kind = kernels::UpdateRule::Kind::SGD;
  static constexpr bool makes_states = true;

  static kernels::UpdateRule rule_of(const torch::optim::OptimizerOptions& any) {
    const auto& options = static_cast<const torch::optim::SGDOptions&>(any);
    kernels::UpdateRule rule;
    rule.kind = kind;
    rule.lr = options.lr();
    rule.weight_decay = options.weight_decay();
    rule.momentum = options.momentum();
    rule.dampening = options.dampening();
    rule.nesterov = options.nesterov();
    return rule;
  }
  static StateFields fields_of(State& state) { return {{&state.momentum_buffer()}, nullptr}; }
};

namespace detail {

template <class Options>
kernels::UpdateRule adam_rule(kernels::UpdateRule::Kind kind, const Options& options) {
  kernels::UpdateRule rule;
  rule.kind = kind;
  rule.lr = options.lr();
  rule.weight_decay = options.weight_decay();
  rule.beta1 = std::get<0>(options.betas());
  rule.beta2 = std::get<1>(options.betas());
  rule.eps = options.eps();
  rule.amsgrad = options.amsgrad();
  return rule;
}

template <class State>
StateFields adam_fields(State& state) {
  return {{&state.exp_avg(), &state.exp_avg_sq(), &state.max_exp_avg_sq()}, &state.step()};
}

}  // namespace detail

template <class Optimizer>
struct Rules<Optimizer, std::enable_if_t<std::is_base_of_v<torch::optim::Adam, Optimizer>>> {
  using State = torch::optim::AdamParamState;
  static constexpr auto kind = kernels::UpdateRule::Kind::Adam;
  static constexpr bool makes_states = true;

  static kernels::UpdateRule rule_of(const torch::optim::OptimizerOptions& options) {
    return detail::adam_rule(kind, static_cast<const torch::optim::AdamOptions&>(options));
  }
  static StateFields fields_of(State& state) { return detail::adam_fields(state); }
};

template <class Optimizer>
struct Rules<Optimizer, std::enable_if_t<std::is_base_of_v<torch::optim::AdamW, Optimizer>>> {
  using State = torch::optim::AdamWParamState;
  static constexpr auto kind = kernels::UpdateRule::Kind::AdamW;
  static constexpr bool makes_states = true;

  static kernels::UpdateRule rule_of(const torch::optim::OptimizerOptions& options) {
    return detail::adam_rule(kind, static_cast<const torch::optim::AdamWOptions&>(options));
  }
  static StateFields fields_of(State& state) { return detail::adam_fields(state); }
};

template <class Optimizer>
struct Rules<Optimizer, std::enable_if_t<std::is_base_of_v<torch::optim::Adagrad, Optimizer>>> {
  using State = torch::optim::AdagradParamState;
  static constexpr auto kind = kernels::UpdateRule::Kind::Adagrad;
  static constexpr bool makes_states = false;  // its constructor makes them

  static kernels::UpdateRule rule_of(const torch::optim::OptimizerOptions& any) {
    const auto& options = static_cast<const torch::optim::AdagradOptions&>(any);
    kernels::UpdateRule rule;
    rule.kind = kind;
    rule.lr = options.lr();
    rule.lr_decay = options.lr_decay();
    rule.weight_decay = options.weight_decay();
    rule.eps = options.eps();
    return rule;
  }
  static StateFields fields_of(State& state) { return {{&state.sum()}, &state.step()}; }
};

template <class Optimizer>
struct Rules<Optimizer, std::enable_if_t<std::is_base_of_v<torch::optim::RMSprop, Optimizer>>> {
  using State = torch::optim::RMSpropParamState;
  static constexpr auto kind = kernels::UpdateRule::Kind::RMSprop;
  static constexpr bool makes_states = true;

  static kernels::UpdateRule rule_of(const torch::optim::OptimizerOptions& any) {
    const auto& options = static_cast<const torch::optim::RMSpropOptions&>(any);
    kernels::UpdateRule rule;
    rule.kind = kind;
    rule.lr = options.lr();
    rule.weight_decay = options.weight_decay();
    rule.momentum = options.momentum();
    rule.alpha = options.alpha();
    rule.eps = options.eps();
    rule.centered = options.centered();
    return rule;
  }
  static StateFields fields_of(State& state) {
    return {{&state.square_avg(), &state.momentum_buffer(), &state.grad_avg()}, &state.step()};
  }
};

}  // namespace base
STEPPE_NAMESPACE_END
