// What an optimizer remembers of parameters that were moved without it.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace shift {

namespace detail {

/// LibTorch before 2.2 keys its states by what a stream writes of the pointer.
template <class State>
void erase_state(State& state, const at::Tensor& param) {
  void* const key = param.unsafeGetTensorImpl();
  if constexpr (std::is_same_v<typename State::key_type, std::string>) {
    std::ostringstream text;
    text << key;
    state.erase(text.str());
  } else {
    state.erase(key);
  }
}

}  // namespace detail

/// Erases the momentum and the like of these parameters, as if they had never been stepped. SGD, Adam, AdamW and
/// RMSprop begin anew at the next step; Adagrad and LBFGS cannot do without their state.
inline void forget_state(torch::optim::Optimizer& optimizer, const std::vector<at::Tensor>& params) {
  for (const at::Tensor& param : params) detail::erase_state(optimizer.state(), param);
}

}  // namespace shift
STEPPE_NAMESPACE_END
