// What changes from step to step of a base optimizer, as numbers of a device.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <steppe/kernels/dispatch_update.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace base {

/// The count of steps and the learning rate of a list of parameters. A CUDA graph that holds a step reads both and
/// counts on by itself, so that the host's count falls behind.
class DeviceNumbers {
 public:
  /// `next`: the step that is made next, from 1, as the host counts; 0 where nobody counts.
  DeviceNumbers(std::vector<at::Tensor> params, size_t group, int64_t next, double lr)
      : params_(std::move(params)), group_(group), next_(next), lr_(lr) {
    const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat).device(params_.front().device());
    count_ = at::full({}, static_cast<double>(next - 1), options);
    rate_ = at::full({}, lr, options);
  }

  const std::vector<at::Tensor>& params() const { return params_; }
  size_t group() const { return group_; }
  double lr() const { return lr_; }

  bool are_of(const kernels::UpdateList& list, int64_t step) const {
    if (step != next_ || list.params.size() != params_.size()) return false;
    for (size_t i = 0; i < params_.size(); ++i)
      if (!params_[i].is_same(list.params[i])) return false;
    return true;
  }

  void set_rate(double lr) {
    if (lr < lr_ || lr > lr_) rate_.fill_(lr_ = lr);
  }

  /// For the step that is made now; `found_inf`: where it is 1 that step does not count. Undefined: it does.
  kernels::UpdateNumbers begin_step(const at::Tensor& found_inf) {
    kernels::UpdateNumbers numbers;
    count_.add_(1.0);
    if (found_inf.defined()) {
      numbers.found_inf = found_inf.to(count_.device());
      count_.sub_(numbers.found_inf.reshape({}));
    }
    numbers.step = count_;
    numbers.lr = rate_;
    if (next_ > 0) ++next_;
    return numbers;
  }

  /// The steps that the host has counted, and those that were made; waits for the device.
  int64_t counted_on_host() const { return next_ - 1; }
  int64_t made() const { return static_cast<int64_t>(count_.item<float>()); }
  void count_on_host(int64_t steps) { next_ = steps + 1; }

 private:
  std::vector<at::Tensor> params_;
  size_t group_;
  int64_t next_;
  double lr_;
  at::Tensor count_, rate_;
};

}  // namespace base
STEPPE_NAMESPACE_END
