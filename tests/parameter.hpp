// A leaf that requires a gradient.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

namespace steppe {

inline at::Tensor parameter(const at::Tensor& value) { return value.detach().requires_grad_(); }

}  // namespace steppe
