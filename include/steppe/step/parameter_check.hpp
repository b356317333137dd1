// What no optimizer can train is refused before anything has changed.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>

#include <string>
#include <unordered_map>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace detail {

/// Looks at one parameter group after the other. Throws on undefined and non-leaf tensors, layouts and dtypes without
/// gradients, and a tensor that it has seen before.
class ParameterCheck {
 public:
  void group(const std::vector<at::Tensor>& params) {
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

 private:
  struct Place {
    size_t group, index;
  };

  std::string name_of(size_t index) const {
    return "parameter " + std::to_string(index) + " of group " + std::to_string(groups_);
  }

  std::unordered_map<const c10::TensorImpl*, Place> seen_;
  size_t groups_ = 0;
};

inline std::vector<at::Tensor> checked(std::vector<at::Tensor> params) {
  TORCH_CHECK(!params.empty(),
              "steppe: the parameter list is empty; has the model registered its layers (register_module()) and "
              "parameters? An optimizer that gets groups later is made from a group without parameters");
  ParameterCheck().group(params);
  return params;
}

inline std::vector<torch::optim::OptimizerParamGroup> checked(std::vector<torch::optim::OptimizerParamGroup> groups) {
  TORCH_CHECK(!groups.empty(), "steppe: the list of parameter groups is empty; pass at least one group");
  ParameterCheck check;
  for (const auto& group : groups) check.group(group.params());
  return groups;
}

}  // namespace detail
STEPPE_NAMESPACE_END
