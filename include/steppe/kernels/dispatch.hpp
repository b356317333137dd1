// The one door to the kernels: chooses the implementation of an ascent for the tensors at hand.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include <steppe/kernels/reference.hpp>

namespace steppe::kernels {

/// w <- w + e for every task; see reference::ascend for the definition.
inline AscentResult ascend(const std::vector<AscentTask>& tasks) { return reference::ascend(tasks); }

/// g minus its mean per output row, in place; for tensors of at least `min_dim` (and two) dimensions.
inline void centralize_(at::Tensor& gradient, int64_t min_dim) {
  if (gradient.dim() < std::max<int64_t>(min_dim, 2) || gradient.numel() == 0) return;
  const c10::NoGradGuard no_grad;
  gradient.copy_(reference::centralize(gradient));
}

}  // namespace steppe::kernels
