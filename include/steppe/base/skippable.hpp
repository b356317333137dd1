// Steps that a device decides to skip.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace base {

/// An optimizer whose steps a GradScaler can skip without waiting for the device.
class Skippable {
 public:
  /// The next step() changes nothing where `found_inf` (float32, one element, on any device) is 1.
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
