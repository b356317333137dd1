// What is wrong with a list of parameters.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>

#include <cstddef>
#include <string>
#include <unordered_set>
#include <vector>

#include <steppe/step/parameter_check.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace detail {

STEPPE_INLINE std::string ParameterCheck::name_of(size_t index) const {
  return "parameter " + std::to_string(index) + " of group " + std::to_string(groups_);
}

STEPPE_INLINE void ParameterCheck::group(const std::vector<at::Tensor>& params) {
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor& param = params[i];
    TORCH_CHECK(param.defined(), "steppe: ", name_of(i), " is an undefined tensor");
    TORCH_CHECK(param.is_leaf(), "steppe: ", name_of(i), " of shape ", param.sizes(),
                " is not a leaf: it is the result of an operation; pass the tensor it was made from");
    TORCH_CHECK(param.layout() == at::kStrided, "steppe: ", name_of(i), " has layout ", param.layout(),
                "; parameters must be dense (sparse gradients are fine)");
    TORCH_CHECK(param.is_floating_point() || param.is_complex(), "steppe: ", name_of(i), " has dtype ", param.dtype(),
                "; parameters must be floating-point or complex");
    const auto [first, is_new] = seen_.emplace(param.unsafeGetTensorImpl(), Place{groups_, i});
    TORCH_CHECK(is_new, "steppe: ", name_of(i), " of shape ", param.sizes(), " appears twice: it is parameter ",
                first->second.index, " of group ", first->second.group, " already; pass each tensor once");
  }
  ++groups_;
}

STEPPE_INLINE std::vector<at::Tensor> checked(std::vector<at::Tensor> params) {
  TORCH_CHECK(!params.empty(),
              "steppe: the parameter list is empty; has the model registered its layers (register_module()) and "
              "parameters? An optimizer that gets groups later is made from a group without parameters");
  ParameterCheck().group(params);
  return params;
}

STEPPE_INLINE std::vector<torch::optim::OptimizerParamGroup> checked(
    std::vector<torch::optim::OptimizerParamGroup> groups) {
  TORCH_CHECK(!groups.empty(), "steppe: the list of parameter groups is empty; pass at least one group");
  ParameterCheck check;
  for (const auto& group : groups) check.group(group.params());
  return groups;
}

STEPPE_INLINE std::vector<at::Tensor> params_of(const torch::optim::Optimizer& optimizer) {
  std::vector<at::Tensor> params;
  for (const auto& group : optimizer.param_groups())
    params.insert(params.end(), group.params().begin(), group.params().end());
  return params;
}

STEPPE_INLINE void check_members(const std::vector<at::Tensor>& given, const std::vector<at::Tensor>& params) {
  std::unordered_set<const c10::TensorImpl*> own;
  for (const at::Tensor& param : params) own.insert(param.unsafeGetTensorImpl());
  for (size_t i = 0; i < given.size(); ++i)
    TORCH_CHECK(given[i].defined() && own.count(given[i].unsafeGetTensorImpl()) != 0, "steppe: tensor ", i,
                " of the list is not a parameter of this optimizer; pass parameters of the model it was made from");
}

}  // namespace detail
STEPPE_NAMESPACE_END
