// Tensors that a method keeps for each parameter from one step to the next.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// One tensor for each parameter of a group, of the parameter's shape or a scalar: an average of gradients, or a
/// correction that later steps reuse.
///
/// What a step sets takes effect at commit(); a step that fails or is cancelled leaves the kept tensors as they were.
/// They are never written to. Memory: one tensor per parameter, two during a step that sets it.
class PerParameter {
 public:
  /// Sets the parameters of the group, whose order checkpoints use. Drops what was set and not committed. Errors: a
  /// loaded tensor does not fit its parameter.
  void bind(const std::vector<at::Tensor>& params) {
    next_.clear();
    bool same = !loaded_ && params.size() == params_.size();
    for (size_t i = 0; same && i < params.size(); ++i) same = params[i].is_same(params_[i]);
    if (same) return;
    std::vector<at::Tensor> kept(params.size());
    for (size_t i = 0; i < params.size(); ++i) kept[i] = loaded_ ? loaded_for(params, i) : of(params[i]);
    kept_ = std::move(kept);
    params_ = params;
    loaded_ = false;
    index_.clear();
    for (size_t i = 0; i < params_.size(); ++i) index_.emplace(params_[i].unsafeGetTensorImpl(), i);
  }

  /// What earlier steps have kept for a parameter; undefined if there is nothing.
  at::Tensor of(const at::Tensor& param) const {
    const auto found = index_.find(param.unsafeGetTensorImpl());
    return found == index_.end() ? at::Tensor() : kept_[found->second];
  }

  /// Takes effect at commit(). `squares`: the sum of the value's squares, if it is known; if that is not finite, the
  /// value is not kept.
  void set(const at::Tensor& param, at::Tensor value, const at::Tensor& squares = {}) {
    next_[param.unsafeGetTensorImpl()] = {param, std::move(value),
                                          squares.defined() ? squares.isfinite() : at::Tensor()};
  }

  /// Keeps what was set since bind(), except values whose `squares` are not finite.
  void commit() {
    const c10::NoGradGuard no_grad;
    for (auto& [impl, set] : std::exchange(next_, {})) {
      const auto [place, is_new] = index_.emplace(impl, params_.size());
      if (is_new) {
        params_.push_back(set.param);
        kept_.emplace_back();
      }
      at::Tensor& kept = kept_[place->second];
      if (!set.finite.defined()) {
        kept = std::move(set.value);
      } else if (set.finite.device().is_cpu() || !kept.defined()) {  // a first value is waited for once
        if (set.finite.item<bool>()) kept = std::move(set.value);
      } else {  // without waiting for the device
        kept = at::where(set.finite, set.value, kept);
      }
    }
  }

  /// Drops everything.
  void forget() { *this = PerParameter(); }

  /// Memory that is held between steps, in bytes.
  int64_t bytes() const {
    int64_t sum = 0;
    for (const at::Tensor& tensor : kept_)
      if (tensor.defined()) sum += static_cast<int64_t>(tensor.nbytes());
    return sum;
  }

  /// What a checkpoint has of it.
  template <class Fields>
  void fields(Fields& field) {
    const std::vector<at::Tensor> before = kept_;
    field("kept", kept_);
    loaded_ = loaded_ || kept_.size() != before.size();
    for (size_t i = 0; !loaded_ && i < kept_.size(); ++i) loaded_ = !kept_[i].is_same(before[i]);
  }

 private:
  struct Set {
    at::Tensor param, value, finite;
  };

  /// A checkpoint has them in the order of the group.
  at::Tensor loaded_for(const std::vector<at::Tensor>& params, size_t i) const {
    TORCH_CHECK(kept_.size() <= params.size(), "steppe: the checkpoint keeps tensors of ", kept_.size(),
                " parameters for a group of ", params.size(), "; it is damaged, or of another model");
    if (i >= kept_.size() || !kept_[i].defined()) return {};
    TORCH_CHECK(!kept_[i].is_sparse() && (kept_[i].dim() == 0 || kept_[i].sizes() == params[i].sizes()),
                "steppe: the checkpoint keeps a tensor of shape ", kept_[i].sizes(), " for a parameter of shape ",
                params[i].sizes(), "; it is damaged, or of another model");
    return kept_[i].to(params[i].device());
  }

  std::vector<at::Tensor> params_, kept_;
  std::unordered_map<const c10::TensorImpl*, size_t> index_;
  std::unordered_map<const c10::TensorImpl*, Set> next_;
  bool loaded_ = false;  ///< kept_ was loaded, for the parameters of the next bind()
};

STEPPE_NAMESPACE_END
