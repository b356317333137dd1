// A model that is measured in a scope, and restored at its end.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>

#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include <steppe/step/generator_state.hpp>
#include <steppe/step/observed.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// While it lives, no parameter has a gradient and each of `measured` requires one; at the end of its scope the
/// gradients (the same tensors), requires_grad and the training flags of `modules` are restored. Costs no memory.
class Untouched {
 public:
  /// `measured` and `others`: the model's parameters. `modules`: parents before their children.
  Untouched(const std::vector<at::Tensor>& measured, const std::vector<at::Tensor>& others,
            std::vector<torch::nn::Module*> modules)
      : params_(measured), modules_(std::move(modules)) {
    params_.insert(params_.end(), others.begin(), others.end());
    for (const torch::nn::Module* module : modules_) training_.push_back(module->is_training());
    for (const at::Tensor& param : params_) {
      requires_grad_.push_back(param.requires_grad());
      gradients_.push_back(param.grad());
    }
    try {
      for (const at::Tensor& param : measured) param.requires_grad_(true);
    } catch (...) {
      for (size_t i = params_.size(); i-- > 0;)
        if (params_[i].requires_grad() != requires_grad_[i]) params_[i].requires_grad_(requires_grad_[i]);
      throw;
    }
    for (const at::Tensor& param : params_) param.mutable_grad() = at::Tensor();
  }

  Untouched(const Untouched&) = delete;
  Untouched& operator=(const Untouched&) = delete;

  ~Untouched() {
    try {
      // Backwards: for a tensor of both lists, the first entry has its original state.
      for (size_t i = params_.size(); i-- > 0;) {
        params_[i].mutable_grad() = gradients_[i];
        params_[i].requires_grad_(requires_grad_[i]);
      }
      // Parents come before their children, which train() changes too.
      for (size_t i = 0; i < modules_.size(); ++i)
        if (modules_[i]->is_training() != training_[i]) modules_[i]->train(training_[i]);
    } catch (const std::exception& error) {
      TORCH_WARN("steppe: the measured model could not be restored: ", error.what());
    }
  }

  /// The generator states of this thread's measurement, from which each of its evaluations draws the same numbers.
  static std::shared_ptr<std::vector<step::GeneratorState>> random_numbers() {
    return measurement().depth > 0 ? measurement().numbers : std::make_shared<std::vector<step::GeneratorState>>();
  }

 private:
  struct Measurement {
    int depth = 0;
    std::shared_ptr<std::vector<step::GeneratorState>> numbers;
  };
  /// Counts one more measurement of this thread.
  struct Begun {
    Begun() {
      if (++measurement().depth == 1) measurement().numbers = std::make_shared<std::vector<step::GeneratorState>>();
    }
    ~Begun() {
      if (--measurement().depth == 0) measurement().numbers.reset();
    }
    Begun(const Begun&) = delete;
    Begun& operator=(const Begun&) = delete;
  };
  static Measurement& measurement() {
    static thread_local Measurement of_thread;
    return of_thread;
  }

  const step::Pause pause_;  // a loop that is being recorded does not see the measurement
  const Begun begun_;
  std::vector<at::Tensor> params_, gradients_;
  std::vector<torch::nn::Module*> modules_;
  std::vector<bool> requires_grad_, training_;
};

}  // namespace sharpness
STEPPE_NAMESPACE_END
