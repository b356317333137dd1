// Parameters that a forward itself writes, restored after it.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <exception>
#include <unordered_set>
#include <vector>

#include <steppe/sharpness/displaced.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Copies the parameters when made and restores, bit for bit, those that were written or given other memory: by the
/// max_norm of an Embedding or a spectral norm written by hand. Memory: a copy of the parameters until keep_written(),
/// then of the written ones; none of those that `moved`, if given, has copied: it moves them again.
class ParametersGuard {
 public:
  /// `moved`: what has moved some of the parameters, if anything has.
  explicit ParametersGuard(const std::vector<at::Tensor>& params, Displaced* moved = nullptr)
      : params_(params), moved_(moved) {
    std::unordered_set<const c10::TensorImpl*> by_others;
    if (moved != nullptr)
      for (const at::Tensor& param : moved->params()) by_others.insert(param.unsafeGetTensorImpl());
    const c10::NoGradGuard no_grad;
    const at::DisableRecordFunctionGuard unseen;  // observers are not to take these for the forward's
    for (const at::Tensor& param : params_) {
      memory_.push_back(param.variable_data());
      versions_.push_back(param._version());
      saved_.push_back(by_others.count(param.unsafeGetTensorImpl()) > 0 ? at::Tensor() : memory_.back().clone());
    }
  }

  ParametersGuard(const ParametersGuard&) = delete;
  ParametersGuard& operator=(const ParametersGuard&) = delete;

  ~ParametersGuard() {
    try {
      restore();
    } catch (const std::exception& error) {
      TORCH_WARN("steppe: a parameter that the closure has written could not be restored: ", error.what());
    }
  }

  /// To be called after the forward. Parameters that were written are restored only at the end of the scope: a backward
  /// pass may need them.
  void keep_written() {
    const c10::NoGradGuard no_grad;
    const at::DisableRecordFunctionGuard unseen;
    for (size_t i = 0; i < params_.size(); ++i)
      if (saved_[i].defined() && !was_given_other_memory(i) && same_bits(memory_[i], saved_[i])) saved_[i].reset();
  }

 private:
  bool was_given_other_memory(size_t i) const { return !params_[i].is_alias_of(memory_[i]); }

  /// Not by value: NaN differs from itself, and 0 does not from -0.
  static bool same_bits(const at::Tensor& a, const at::Tensor& b) {
    if (a.layout() != at::kStrided) return false;
    switch (a.element_size()) {
      case 2:
        return at::equal(a.view(at::kShort), b.view(at::kShort));
      case 4:
        return at::equal(a.view(at::kInt), b.view(at::kInt));
      case 8:
        return at::equal(a.view(at::kLong), b.view(at::kLong));
      default:
        return at::equal(a, b);
    }
  }

  void restore() {
    const c10::NoGradGuard no_grad;
    const at::DisableRecordFunctionGuard unseen;
    bool any = false;
    for (size_t i = 0; i < params_.size(); ++i) {
      const bool elsewhere = was_given_other_memory(i);
      any = any || elsewhere || saved_[i].defined() || params_[i]._version() != versions_[i];
      if (elsewhere) params_[i].set_data(memory_[i]);
      if (saved_[i].defined()) params_[i].variable_data().copy_(saved_[i]);
    }
    if (any && moved_ != nullptr) moved_->move_again();
    if (any) at::autocast::clear_cache();  // casts of the weights as they were written
  }

  std::vector<at::Tensor> params_, memory_, saved_;
  std::vector<int64_t> versions_;
  Displaced* moved_;
};

}  // namespace sharpness
STEPPE_NAMESPACE_END
