// The step count and learning rate of a base optimizer, held on a device.
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
/// continues the count by itself, so that the host's count falls behind; both tensors must live as long as such a
/// graph.
class DeviceNumbers {
 public:
  /// `next`: the step that is made next, from 1, as the host counts; 0 if the optimizer does not count.
  DeviceNumbers(std::vector<at::Tensor> params, size_t group, int64_t next, double lr)
      : params_(std::move(params)), group_(group), next_(next), lr_(lr) {
    const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat).device(params_.front().device());
    count_ = at::full({}, static_cast<double>(next - 1), options);
    rate_ = at::full({}, lr, options);
  }

  const std::vector<at::Tensor>& params() const { return params_; }
  size_t group() const { return group_; }
  double lr() const { return lr_; }
  bool counts() const { return next_ > 0; }
  /// Whether a graph reads them.
  bool is_captured() const { return captured_; }

  bool are_of(const kernels::UpdateList& list) const {
    if (list.params.size() != params_.size()) return false;
    for (size_t i = 0; i < params_.size(); ++i)
      if (!params_[i].is_same(list.params[i])) return false;
    return true;
  }

  void set_rate(double lr) {
    if (lr < lr_ || lr > lr_) rate_.fill_(lr_ = lr);
  }
  /// Sets the count to the number of steps made.
  void set_count(int64_t made) {
    if (!counts() || next_ == made + 1) return;
    count_.fill_(static_cast<double>(made));
    next_ = made + 1;
    is_ahead_ = captured_;
  }

  /// The numbers of the current step. `found_inf`: where it is 1 the step does not count; undefined: it does.
  kernels::UpdateNumbers begin_step(const at::Tensor& found_inf, bool captured) {
    kernels::UpdateNumbers numbers;
    if (found_inf.defined()) numbers.found_inf = found_inf.reshape({});
    if (counts()) {
      count_.add_(1.0);
      if (found_inf.defined()) count_.sub_(numbers.found_inf);
      ++next_;
    }
    captured_ = captured_ || captured;
    is_ahead_ = is_ahead_ || captured || found_inf.defined();
    numbers.step = count_;
    numbers.lr = rate_;
    return numbers;
  }

  /// Whether the device may have counted another number of steps than the host.
  bool is_ahead() const { return is_ahead_; }
  int64_t counted_on_host() const { return next_ - 1; }
  /// Reads the device's count, which waits for it; the host continues from there.
  int64_t synchronize() {
    const auto made = static_cast<int64_t>(count_.item<float>());
    next_ = made + 1;
    is_ahead_ = captured_;
    return made;
  }

 private:
  std::vector<at::Tensor> params_;
  size_t group_;
  int64_t next_;
  double lr_;
  bool captured_ = false, is_ahead_ = false;
  at::Tensor count_, rate_;
};

}  // namespace base
STEPPE_NAMESPACE_END
