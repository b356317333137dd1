// One step of any optimizer with the gradient of un-normalised SAM.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <functional>

namespace statistics {

/// Two passes: the gradient g at w, then the one at w + rho * g, which `optimizer` steps with; one pass where rho is 0.
/// `closure` zeroes the gradients, computes the loss, calls backward() and returns the loss. Returns the loss at w.
at::Tensor gradient_step(torch::optim::Optimizer& optimizer, double rho, const std::function<at::Tensor()>& closure);

}  // namespace statistics
