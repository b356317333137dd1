// The factor that keeps gradients of 16-bit passes from underflow, and gradients without it.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/full.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/version.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// A step that is skipped because a gradient has overflowed. Thrown through the base optimizer's step().
struct Overflow {
  at::Tensor loss;
};

/// The state that a GradScaler and the optimizers that use it share.
class LossScale {
 public:
  double growth_factor = 2.0;
  double backoff_factor = 0.5;
  int64_t growth_interval = 2000;
  bool enabled = true;

  /// The factor since the last update(); waits for a device that has not reported yet whether that step overflowed.
  double factor() const {
    settle();
    return factor_;
  }
  /// Updates without an overflow since the last change.
  int64_t growth_tracker() const {
    settle();
    return growth_tracker_;
  }

  /// Divides gradients by the factor, in place, in one pass over their memory.
  ///
  /// Returns whether one of them was not finite: a bool on the device of the first, or undefined without any. Nothing
  /// waits for a device.
  at::Tensor unscale(const std::vector<at::Tensor>& gradients) const {
    const c10::NoGradGuard no_grad;
    std::map<std::pair<c10::DeviceType, c10::DeviceIndex>, std::vector<at::Tensor>> of_devices;
    for (const at::Tensor& gradient : gradients) {
      if (!gradient.defined()) continue;
      at::Tensor values = gradient.is_sparse() ? gradient._values() : gradient;
      if (values.is_complex()) values = at::view_as_real(values);
      of_devices[{values.device().type(), values.device().index()}].push_back(values.detach());
    }
    at::Tensor any;
    for (auto& [place, values] : of_devices) {
      const at::Tensor found = unscale_on(c10::Device(place.first, place.second), values);
      any = any.defined() ? any.logical_or(found.to(any.device())) : found;
    }
    return any;
  }

  /// A loss, or a norm of gradients, without the factor.
  at::Tensor without(const at::Tensor& number) const { return number.defined() ? number / factor() : number; }

  /// Called by scale().
  void use() { in_use_ = true; }
  /// Called after pass 1. Errors: scale() was not called.
  void check_used() const {
    TORCH_CHECK(in_use_,
                "steppe: this optimizer divides its gradients by the factor of a GradScaler, but the loss was not "
                "multiplied by it since the last update(); call scaler.scale(loss).backward(), or "
                "GradScaler().enabled(false)");
  }
  /// Called before a step; `seen`: what note() returned to the optimizer in its last one. Errors: no update() since.
  void check_updated(int64_t seen) const {
    TORCH_CHECK(seen != updates_,
                "steppe: this optimizer has made a step with its GradScaler, which was not updated since; call "
                "scaler.update() after the step");
  }
  /// How often the factor was updated, or set.
  int64_t updates() const { return updates_; }
  /// Called when a step has seen its gradients. Returns the number to pass to check_updated() before the next one.
  int64_t note(bool overflowed) {
    noted_ = true;
    overflowed_ = overflowed_ || overflowed;
    return updates_;
  }
  /// The same with a bool that is read when the factor is next used: it may be on a device.
  int64_t note_later(const at::Tensor& overflowed) {
    later_.push_back(overflowed);
    return note(false);
  }

  /// Errors: no step was made.
  void update() {
    TORCH_CHECK(noted_,
                "steppe: GradScaler::update() was called, but no step was made since the last one; call it "
                "after the optimizer's step");
    settle();
    due_ = {true, overflowed_, growth_factor, backoff_factor, growth_interval, std::move(later_)};
    if (due_.later.empty()) settle();
    begin_anew();
  }
  void set(double value, int64_t tracker) {
    settle();
    factor_ = value;
    growth_tracker_ = tracker;
    begin_anew();
  }

 private:
  static at::Tensor unscale_on(c10::Device device, std::vector<at::Tensor>& values, double inverse) {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3)
    constexpr bool has_operator_on_cpu = true;
#else
    constexpr bool has_operator_on_cpu = false;
#endif
    const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat).device(device);
    at::Tensor found = at::zeros({}, options);
    if (has_operator_on_cpu || !device.is_cpu()) {
      at::_amp_foreach_non_finite_check_and_unscale_(values, found, at::full({}, inverse, options));
      return found > 0;
    }
    for (at::Tensor& each : values) found.logical_or_(each.mul_(inverse).isfinite().all().logical_not());
    return found > 0;
  }
  at::Tensor unscale_on(c10::Device device, std::vector<at::Tensor>& values) const {
    return unscale_on(device, values, 1.0 / factor());
  }

  /// An update() that is still to be carried out, with the settings of that time.
  struct Due {
    bool is_due = false, overflowed = false;
    double growth_factor = 0.0, backoff_factor = 0.0;
    int64_t growth_interval = 0;
    std::vector<at::Tensor> later;
  };

  /// Carries it out. Const, since the value of the factor was determined before.
  void settle() const {
    if (!due_.is_due) return;
    for (const at::Tensor& flag : due_.later) due_.overflowed = flag.item<bool>() || due_.overflowed;
    ++growth_tracker_;
    if (due_.overflowed) {
      factor_ *= due_.backoff_factor;
      growth_tracker_ = 0;
    } else if (growth_tracker_ >= due_.growth_interval) {
      // Not beyond the range of float, as in LibTorch.
      if (const double next = factor_ * due_.growth_factor; next <= 3.4028234663852886e38) factor_ = next;
      growth_tracker_ = 0;
    }
    due_ = Due();
  }

  void begin_anew() {
    in_use_ = noted_ = overflowed_ = false;
    later_.clear();
    ++updates_;
  }

  mutable double factor_ = 65536.0;
  mutable int64_t growth_tracker_ = 0;
  bool in_use_ = false, noted_ = false, overflowed_ = false;
  std::vector<at::Tensor> later_;  ///< whether steps of this iteration overflowed
  int64_t updates_ = 0;
  mutable Due due_;
};

/// An optimizer that unscales its gradients itself, because it makes several passes.
class UsesLossScale {
 public:
  virtual void use_loss_scale(std::shared_ptr<LossScale> scale) = 0;

 protected:
  UsesLossScale() = default;
  UsesLossScale(const UsesLossScale&) = default;
  UsesLossScale(UsesLossScale&&) = default;
  UsesLossScale& operator=(const UsesLossScale&) = default;
  UsesLossScale& operator=(UsesLossScale&&) = default;
  ~UsesLossScale() = default;
};

}  // namespace step
STEPPE_NAMESPACE_END
