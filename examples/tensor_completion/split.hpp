// Which entries of a tensor are trained on, which are held out.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace completion {

/// Three masks (bool, of the tensor's shape); each entry is in exactly one. Training and validation together are the
/// observed entries.
struct Split {
  at::Tensor training, validation, held_out;

  at::Tensor observed() const { return training.logical_or(validation); }
};

/// Draws round(masked * n) held-out entries, then round(validation * rest) of the others for validation. The held-out
/// entries of a seed do not depend on `validation`. The draw is the program's own, the same on every platform.
///
/// Errors: shares outside [0, 1); an empty tensor; no entry left to train on.
Split draw_split(const std::vector<int64_t>& shape, double masked, double validation, uint64_t seed);

}  // namespace completion
