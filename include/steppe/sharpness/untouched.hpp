// A model that is measured in a scope, and left at its end as it was found.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>

#include <exception>
#include <utility>
#include <vector>

#include <steppe/step/observed.hpp>

namespace steppe::sharpness {

/// Takes all gradients away and lets every one of `measured` require one while it lives; at the end of its scope the
/// gradients (the same tensors), requires_grad and the training flags of `modules` are as they were. Costs no memory.
class Untouched {
 public:
  Untouched(const std::vector<at::Tensor>& measured, const std::vector<at::Tensor>& others,
            std::vector<torch::nn::Module*> modules)
      : params_(measured), modules_(std::move(modules)) {
    params_.insert(params_.end(), others.begin(), others.end());
    for (const torch::nn::Module* module : modules_) training_.push_back(module->is_training());
    for (const at::Tensor& param : params_) {
      requires_grad_.push_back(param.requires_grad());
      gradients_.push_back(param.grad());
    }
    for (const at::Tensor& param : params_) param.mutable_grad() = at::Tensor();
    for (const at::Tensor& param : measured) param.requires_grad_(true);
  }

  Untouched(const Untouched&) = delete;
  Untouched& operator=(const Untouched&) = delete;

  ~Untouched() {
    try {
      // Backwards: what stands among both lists was first seen as it was.
      for (size_t i = params_.size(); i-- > 0;) {
        params_[i].mutable_grad() = gradients_[i];
        params_[i].requires_grad_(requires_grad_[i]);
      }
      // Parents come before their children, whom train() changes too.
      for (size_t i = 0; i < modules_.size(); ++i)
        if (modules_[i]->is_training() != training_[i]) modules_[i]->train(training_[i]);
    } catch (const std::exception& error) {
      TORCH_WARN("steppe: the measured model could not be put back: ", error.what());
    }
  }

 private:
  const step::Pause pause_;  // a loop that is being recorded does not see the measurement
  std::vector<at::Tensor> params_, gradients_;
  std::vector<torch::nn::Module*> modules_;
  std::vector<bool> requires_grad_, training_;
};

}  // namespace steppe::sharpness
