// An optimizer's state for parameters that were moved without it.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <vector>

#include <steppe/base/state.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace shift {

/// Erases the momentum and the like of these parameters, as if they had never been stepped. SGD, Adam, AdamW and
/// RMSprop create it again at the next step; Adagrad and LBFGS cannot step without it.
inline void forget_state(torch::optim::Optimizer& optimizer, const std::vector<at::Tensor>& params) {
  for (const at::Tensor& param : params) optimizer.state().erase(base::state_key(param));
}

}  // namespace shift
STEPPE_NAMESPACE_END
