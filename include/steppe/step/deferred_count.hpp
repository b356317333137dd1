// A count of events that a device detects.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <cstdint>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Counts flags without reading them; value() waits for the device.
class DeferredCount {
 public:
  /// A tensor of one bool.
  void add(const at::Tensor& happened) {
    if (happened.device().is_cpu()) {
      on_host_ += *happened.data_ptr<bool>() ? 1 : 0;
      return;
    }
    // In place: a CUDA graph continues the count when it is replayed.
    const at::Tensor one = happened.to(at::kLong);
    if (on_device_.defined() && on_device_.device() == one.device())
      on_device_.add_(one);
    else
      on_device_ = on_device_.defined() ? on_device_.to(one.device()) + one : one;
  }

  int64_t value() const { return on_host_ + (on_device_.defined() ? on_device_.item<int64_t>() : 0); }
  void set(int64_t count) {
    on_host_ = count;
    if (on_device_.defined()) on_device_.zero_();
  }
  /// Whether events on a device were counted.
  bool is_on_device() const { return on_device_.defined(); }

 private:
  int64_t on_host_ = 0;
  at::Tensor on_device_;
};

}  // namespace step
STEPPE_NAMESPACE_END
