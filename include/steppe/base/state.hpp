// Where LibTorch's optimizers keep the state of a parameter.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <sstream>
#include <string>
#include <type_traits>
#include <utility>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace base {

using States = std::decay_t<decltype(std::declval<torch::optim::Optimizer&>().state())>;

/// LibTorch before 2.1 keys its states by the text of the pointer.
template <class Key = States::key_type>
Key state_key(const at::Tensor& param) {
  void* const pointer = param.unsafeGetTensorImpl();
  if constexpr (std::is_same_v<Key, std::string>) {
    std::ostringstream text;
    text << pointer;
    return text.str();
  } else {
    return pointer;
  }
}

/// Null if there is none.
inline torch::optim::OptimizerParamState* find_state(const States& states, const at::Tensor& param) {
  const auto found = states.find(state_key(param));
  return found == states.end() ? nullptr : found->second.get();
}

}  // namespace base
STEPPE_NAMESPACE_END
