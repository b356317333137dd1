// The autocast state of a thread, to be set again.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/autocast_mode.h>
#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>
#include <torch/version.h>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Clears the cached casts of weights at the end of its scope.
class CastsForgotten {
 public:
  CastsForgotten() = default;
  ~CastsForgotten() { at::autocast::clear_cache(); }
  CastsForgotten(const CastsForgotten&) = delete;
  CastsForgotten& operator=(const CastsForgotten&) = delete;
};

/// Whether operators on the CPU and on CUDA devices are cast, to what, and whether casts of weights are cached.
class AutocastState {
 public:
  static AutocastState now() {
    AutocastState state;
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
    state.cpu_ = at::autocast::is_autocast_enabled(at::kCPU);
    state.cuda_ = at::autocast::is_autocast_enabled(at::kCUDA);
    state.cpu_dtype_ = at::autocast::get_autocast_dtype(at::kCPU);
    state.cuda_dtype_ = at::autocast::get_autocast_dtype(at::kCUDA);
#else
    state.cpu_ = at::autocast::is_cpu_enabled();
    state.cuda_ = at::autocast::is_enabled();
    state.cpu_dtype_ = at::autocast::get_autocast_cpu_dtype();
    state.cuda_dtype_ = at::autocast::get_autocast_gpu_dtype();
#endif
    state.cached_ = at::autocast::is_autocast_cache_enabled();
    return state;
  }

  void set() const {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
    at::autocast::set_autocast_enabled(at::kCPU, cpu_);
    at::autocast::set_autocast_enabled(at::kCUDA, cuda_);
    at::autocast::set_autocast_dtype(at::kCPU, cpu_dtype_);
    at::autocast::set_autocast_dtype(at::kCUDA, cuda_dtype_);
#else
    at::autocast::set_cpu_enabled(cpu_);
    at::autocast::set_enabled(cuda_);
    at::autocast::set_autocast_cpu_dtype(cpu_dtype_);
    at::autocast::set_autocast_gpu_dtype(cuda_dtype_);
#endif
    at::autocast::set_autocast_cache_enabled(cached_);
  }

  bool enabled() const { return cpu_ || cuda_; }

  /// The same state, except for the CPU or for CUDA devices.
  AutocastState with(c10::DeviceType device, bool enabled, at::ScalarType dtype) const {
    AutocastState state = *this;
    (device == at::kCPU ? state.cpu_ : state.cuda_) = enabled;
    (device == at::kCPU ? state.cpu_dtype_ : state.cuda_dtype_) = dtype;
    return state;
  }

  friend bool operator==(const AutocastState& a, const AutocastState& b) {
    return a.cpu_ == b.cpu_ && a.cuda_ == b.cuda_ && a.cpu_dtype_ == b.cpu_dtype_ && a.cuda_dtype_ == b.cuda_dtype_ &&
           a.cached_ == b.cached_;
  }
  friend bool operator!=(const AutocastState& a, const AutocastState& b) { return !(a == b); }

 private:
  bool cpu_ = false, cuda_ = false, cached_ = true;
  at::ScalarType cpu_dtype_ = at::kBFloat16, cuda_dtype_ = at::kHalf;
};

/// Restores the caller's state at the end of its scope, and keeps no cast of the weights beyond it.
class AutocastScope {
 public:
  AutocastScope() { at::autocast::clear_cache(); }
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;
  ~AutocastScope() {
    if (state_ != callers_) callers_.set();
    at::autocast::clear_cache();
  }

  void set(const AutocastState& state) {
    if (state == state_) return;
    if (state_.enabled() && !state.enabled()) at::autocast::clear_cache();
    state.set();
    state_ = state;
  }

 private:
  const AutocastState callers_ = AutocastState::now();
  AutocastState state_ = callers_;
};

}  // namespace step
STEPPE_NAMESPACE_END
