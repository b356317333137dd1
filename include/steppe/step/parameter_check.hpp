// Rejects what no optimizer can train, before anything has changed.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace detail {

/// Checks one parameter group after another. Throws on undefined and non-leaf tensors, layouts and dtypes without
/// gradients, and a tensor that it has seen before.
class ParameterCheck {
 public:
  void group(const std::vector<at::Tensor>& params);

 private:
  struct Place {
    size_t group, index;
  };
  std::string name_of(size_t index) const;

  std::unordered_map<const c10::TensorImpl*, Place> seen_;
  size_t groups_ = 0;
};

/// The list itself if an optimizer can train it, else an error; one without parameters as well.
std::vector<at::Tensor> checked(std::vector<at::Tensor> params);
std::vector<torch::optim::OptimizerParamGroup> checked(std::vector<torch::optim::OptimizerParamGroup> groups);

/// The parameters of all groups.
std::vector<at::Tensor> params_of(const torch::optim::Optimizer& optimizer);

/// Throws unless `given` are some of an optimizer's parameters.
void check_members(const std::vector<at::Tensor>& given, const std::vector<at::Tensor>& params);

}  // namespace detail
STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/step/parameter_check.ipp>
#endif
