// Tensors that a method keeps for each parameter from one step to the next.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// One tensor for each parameter of a group, of its shape or a number: an average of gradients, a correction that is
/// used again.
///
/// What a step sets counts from commit() on; a step that fails, or is given up, leaves what was there. Tensors that are
/// kept are never written to. Memory: one tensor a parameter, two during a step that sets it.
class PerParameter {
 public:
  /// The order of the group, which checkpoints have. Forgets what was set and not committed. Errors: a tensor that was
  /// loaded does not fit its parameter.
  void bind(const std::vector<at::Tensor>& params) {
    next_.clear();
    bool same = params.size() == params_.size();
    for (size_t i = 0; same && i < params.size(); ++i) same = params[i].is_same(params_[i]);
    if (same) return;
    TORCH_CHECK(kept_.size() <= params.size(), "steppe: the checkpoint keeps tensors of ", kept_.size(),
                " parameters for a group of ", params.size(), "; it is damaged");
    for (size_t i = 0; i < kept_.size(); ++i)
      TORCH_CHECK(!kept_[i].defined() ||
                      (!kept_[i].is_sparse() && (kept_[i].dim() == 0 || kept_[i].sizes() == params[i].sizes())),
                  "steppe: the checkpoint keeps a tensor of shape ", kept_[i].sizes(), " for a parameter of shape ",
                  params[i].sizes(), "; it is damaged, or of another model");
    kept_.resize(params.size());
    for (size_t i = 0; i < kept_.size(); ++i)
      if (kept_[i].defined()) kept_[i] = kept_[i].to(params[i].device());
    params_ = params;
    index_.clear();
    for (size_t i = 0; i < params_.size(); ++i) index_.emplace(params_[i].unsafeGetTensorImpl(), i);
  }

  /// Of the steps before this one; undefined if there was none.
  at::Tensor of(const at::Tensor& param) const {
    const auto found = index_.find(param.unsafeGetTensorImpl());
    return found == index_.end() ? at::Tensor() : kept_[found->second];
  }

  void set(const at::Tensor& param, at::Tensor value) {
    next_[param.unsafeGetTensorImpl()] = {param, std::move(value)};
  }

  void commit() {
    for (auto& [impl, set] : std::exchange(next_, {})) {
      const auto [place, is_new] = index_.emplace(impl, params_.size());
      if (is_new) {
        params_.push_back(set.first);
        kept_.emplace_back();
      }
      kept_[place->second] = std::move(set.second);
    }
  }

  int64_t bytes() const {
    int64_t sum = 0;
    for (const at::Tensor& tensor : kept_)
      if (tensor.defined()) sum += static_cast<int64_t>(tensor.nbytes());
    return sum;
  }

  template <class Fields>
  void fields(Fields& field) {
    const std::vector<at::Tensor> before = kept_;
    field("kept", kept_);
    if (kept_.size() != before.size()) return params_.clear();
    for (size_t i = 0; i < kept_.size(); ++i)
      if (!kept_[i].is_same(before[i])) return params_.clear();  // to be held against the parameters by bind()
  }

 private:
  std::vector<at::Tensor> params_, kept_;
  std::unordered_map<const c10::TensorImpl*, size_t> index_;
  std::unordered_map<const c10::TensorImpl*, std::pair<at::Tensor, at::Tensor>> next_;
};

STEPPE_NAMESPACE_END
