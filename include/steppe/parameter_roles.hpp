// Which parameters of a model are biases, and which belong to normalization layers.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Type.h>
#include <torch/nn/module.h>

#include <string>
#include <typeinfo>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

namespace detail {

/// True for LibTorch's BatchNorm1d/2d/3d, InstanceNorm, LayerNorm and GroupNorm and for any class that is named like
/// them: the class name, less "Impl" and a trailing 1d/2d/3d, ends in "Norm" (RMSNorm, MyLayerNormImpl).
inline bool is_norm_layer(const torch::nn::Module& module) {
  std::string name = c10::demangle(typeid(module).name());
  name = name.substr(0, name.find('<'));
  const auto strip = [&name](const std::string& ending) {
    const bool found =
        name.size() >= ending.size() && name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
    if (found) name.resize(name.size() - ending.size());
    return found;
  };
  strip("Impl");
  if (!strip("1d") && !strip("2d")) strip("3d");
  return strip("Norm");
}

inline bool is_bias_name(const std::string& name) {
  return name.rfind("bias", 0) == 0 || (name.size() >= 4 && name.compare(name.size() - 4, 4, "bias") == 0);
}

/// The parameters for which choose(owning module, local name) is true.
template <class Choose>
std::vector<at::Tensor> choose_parameters(const torch::nn::Module& model, Choose&& choose) {
  std::vector<at::Tensor> chosen;
  const auto visit = [&](const torch::nn::Module& module) {
    for (const auto& item : module.named_parameters(/*recurse=*/false))
      if (item.value().defined() && choose(module, item.key())) chosen.push_back(item.value());
  };
  visit(model);
  // modules() includes the model itself only if a shared_ptr owns it, which is not so for one on the stack.
  for (const auto& child : model.modules(/*include_self=*/false)) visit(*child);
  return chosen;
}

}  // namespace detail

/// Parameters whose local name starts or ends with "bias", those of normalization layers included.
inline std::vector<at::Tensor> biases(const torch::nn::Module& model) {
  return detail::choose_parameters(
      model, [](const torch::nn::Module&, const std::string& name) { return detail::is_bias_name(name); });
}

/// Gains and biases of normalization layers (BatchNorm, LayerNorm, GroupNorm, and classes named like them).
inline std::vector<at::Tensor> norms(const torch::nn::Module& model) {
  return detail::choose_parameters(
      model, [](const torch::nn::Module& module, const std::string&) { return detail::is_norm_layer(module); });
}

/// Both of the above: the parameters that weight decay usually leaves out.
inline std::vector<at::Tensor> biases_and_norms(const torch::nn::Module& model) {
  return detail::choose_parameters(model, [](const torch::nn::Module& module, const std::string& name) {
    return detail::is_norm_layer(module) || detail::is_bias_name(name);
  });
}

/// The gains (not the biases) of normalization layers.
inline std::vector<at::Tensor> norm_gains(const torch::nn::Module& model) {
  return detail::choose_parameters(model, [](const torch::nn::Module& module, const std::string& name) {
    return detail::is_norm_layer(module) && !detail::is_bias_name(name);
  });
}

STEPPE_NAMESPACE_END
