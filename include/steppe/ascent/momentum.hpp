// The base optimizer's momentum as the ascent direction, so that a step needs one pass.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <cstdint>
#include <type_traits>
#include <vector>

#include <steppe/base/state.hpp>
#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/per_parameter.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace ascent {

/// The only pass of a step is made at w - rho v / N(v), v the base optimizer's momentum (MSAM, arXiv 2401.12033), N the
/// global norm: the minus points along the coming step. Where v is zero, as in the first step, it is made at w.
///
/// v is `momentum_buffer` of SGD and RMSprop with momentum, `exp_avg` of Adam and AdamW (without bias correction), each
/// as it is before the step; for other bases an average kept here, v <- decay v + (1 - decay) g from 0. One gradient a
/// step; memory: the perturbed weights, and that average.
///
///     steppe::MSAM<torch::optim::SGD> msam(*model, torch::optim::SGDOptions(0.1).momentum(0.9));
class Momentum {
 public:
  /// The weight of the earlier gradients in the average for bases without a momentum, in [0, 1).
  TORCH_ARG(double, decay) = 0.9;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static constexpr bool keeps_state = true;
  static constexpr bool is_ahead = true;  ///< the direction is known before pass 1
  static constexpr bool points_against = true;

  /// The radius where Options does not set one.
  double default_rho() const { return 3.0; }

  /// Finds where the base keeps v, before a step.
  template <class Base>
  void look_at(Base& base, size_t group) {
    optimizer_ = &base;
    const torch::optim::OptimizerParamGroup& settings = base.param_groups()[group];
    if constexpr (std::is_base_of_v<torch::optim::SGD, Base>)
      find_ = static_cast<const torch::optim::SGDOptions&>(settings.options()).momentum() > 0.0 ? of_sgd : nullptr;
    else if constexpr (std::is_base_of_v<torch::optim::RMSprop, Base>)
      find_ =
          static_cast<const torch::optim::RMSpropOptions&>(settings.options()).momentum() > 0.0 ? of_rmsprop : nullptr;
    else if constexpr (std::is_base_of_v<torch::optim::Adam, Base>)
      find_ = of_adam;
    else if constexpr (std::is_base_of_v<torch::optim::AdamW, Base>)
      find_ = of_adamw;
    else
      find_ = nullptr;
  }

  /// v of a parameter; undefined if there is none yet.
  at::Tensor direction_of(const at::Tensor& param) const {
    if (find_ == nullptr) return average_.of(param);
    torch::optim::OptimizerParamState* state = state_of(param);
    return state == nullptr ? at::Tensor() : find_(*state);
  }

  /// Updates the average with the gradients of the only pass.
  void learn(const std::vector<at::Tensor>& params, const std::vector<at::Tensor>& gradients) {
    if (find_ != nullptr) return;
    for (size_t i = 0; i < params.size(); ++i) {
      if (!gradients[i].defined()) continue;
      std::vector<at::Tensor> next(1);
      const at::Tensor squares = kernels::combine(decay_, {average_.of(params[i])}, 1.0 - decay_, {gradients[i]}, next);
      average_.set(params[i], next[0].is_sparse() ? next[0].to_dense() : next[0], squares);
    }
  }

  void bind(const std::vector<at::Tensor>& params) { average_.bind(params); }
  void commit() { average_.commit(); }
  void forget() { average_.forget(); }
  int64_t bytes() const { return average_.bytes(); }

  void validate() const {
    TORCH_CHECK(decay_ >= 0.0 && decay_ < 1.0, "steppe: Momentum().decay() must be in [0, 1), got ", decay_);
  }

  template <class Fields>
  void fields(Fields& field) {
    field("decay", decay_);
    field("average", average_);
  }
  ///@}

 private:
  using State = torch::optim::OptimizerParamState;

  static at::Tensor of_sgd(const State& state) {
    return static_cast<const torch::optim::SGDParamState&>(state).momentum_buffer();
  }
  static at::Tensor of_rmsprop(const State& state) {
    return static_cast<const torch::optim::RMSpropParamState&>(state).momentum_buffer();
  }
  static at::Tensor of_adam(const State& state) {
    return static_cast<const torch::optim::AdamParamState&>(state).exp_avg();
  }
  static at::Tensor of_adamw(const State& state) {
    return static_cast<const torch::optim::AdamWParamState&>(state).exp_avg();
  }

  State* state_of(const at::Tensor& param) const { return base::find_state(optimizer_->state(), param); }

  torch::optim::Optimizer* optimizer_ = nullptr;
  at::Tensor (*find_)(const State&) = nullptr;
  PerParameter average_;
};

}  // namespace ascent
STEPPE_NAMESPACE_END
