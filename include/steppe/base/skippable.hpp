// Steps that only a device can tell not to be made.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace base {

/// An optimizer that a GradScaler need not wait for.
class Skippable {
 public:
  /// The next step() is none where `found_inf` (float32, one element, on any device) is 1.
  virtual void skip_where(const at::Tensor& found_inf) = 0;

 protected:
  Skippable() = default;
  Skippable(const Skippable&) = default;
  Skippable(Skippable&&) = default;
  Skippable& operator=(const Skippable&) = default;
  Skippable& operator=(Skippable&&) = default;
  ~Skippable() = default;
};

}  // namespace base
STEPPE_NAMESPACE_END
