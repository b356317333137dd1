// What can be passed as a model: a module, its holder or a shared_ptr.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

inline const torch::nn::Module& module_of(const torch::nn::Module& module) { return module; }

template <class Module, class = std::enable_if_t<std::is_base_of_v<torch::nn::Module, Module>>>
Module& module_of(const std::shared_ptr<Module>& model) {
  TORCH_CHECK(model != nullptr, "steppe: the pointer to the model is null; make the model first");
  return *model;
}

template <class Module>
Module& module_of(const torch::nn::ModuleHolder<Module>& holder) {
  TORCH_CHECK(!holder.is_empty(), "steppe: the module's holder is empty; make the model first");
  return *holder.ptr();
}

template <class Model, class = void>
inline constexpr bool is_model = false;
template <class Model>
inline constexpr bool is_model<Model, std::void_t<decltype(module_of(std::declval<const Model&>()))>> = true;

/// Whether it has buffers, as a torch::jit::Module does, and is no model.
template <class Model, class = void>
inline constexpr bool has_buffers = false;
template <class Model>
inline constexpr bool has_buffers<Model, std::void_t<decltype(std::declval<const Model&>().buffers().begin())>> =
    !is_model<Model>;

/// The buffers of such an object.
template <class Model>
std::vector<at::Tensor> buffers_of(const Model& model) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& buffer : model.buffers()) all.push_back(buffer);
  return all;
}

}  // namespace step
STEPPE_NAMESPACE_END
