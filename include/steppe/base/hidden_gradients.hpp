// Gradients hidden from an optimizer.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace base {

/// Hides gradients until the end of its scope from an optimizer, which skips parameters without one. Parameters may be
/// listed twice.
class HiddenGradients {
 public:
  explicit HiddenGradients(std::vector<at::Tensor> params) : params_(std::move(params)) {
    gradients_.reserve(params_.size());
    for (const at::Tensor& param : params_) {
      gradients_.push_back(param.grad());
      param.mutable_grad().reset();
    }
  }
  HiddenGradients(const HiddenGradients&) = delete;
  HiddenGradients& operator=(const HiddenGradients&) = delete;
  ~HiddenGradients() {
    for (size_t i = params_.size(); i-- > 0;) params_[i].mutable_grad() = std::move(gradients_[i]);
  }

 private:
  std::vector<at::Tensor> params_, gradients_;
};

}  // namespace base
STEPPE_NAMESPACE_END
