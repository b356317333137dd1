// Gradients that the program holds, and those of parameters that are not the optimizer's.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/any.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/version.h>

#include <cstring>
#include <exception>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/step/record.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Undefined or zero.
inline bool is_clear(const at::Tensor& gradient) {
  if (!gradient.defined()) return true;
  if (gradient.is_sparse()) return gradient._nnz() == 0;
  if (gradient.numel() == 0) return true;
  if (gradient.device().is_cpu() && gradient.is_non_overlapping_and_dense()) {
    const auto* bytes = static_cast<const char*>(gradient.data_ptr());
    return bytes[0] == 0 && std::memcmp(bytes, bytes + 1, gradient.nbytes() - 1) == 0;
  }
  const c10::NoGradGuard no_grad;
  return !at::any(gradient.detach()).item<bool>();
}

/// Gradients whose memory is the program's: views of one buffer that it reduces over its processes, or tensors that it
/// holds from step to step. They are cleared and written in place, never replaced.
class ProgramsGradients {
 public:
  /// Called before the first step, and after the program has cleared them: gradients that exist now are not made by the
  /// next pass.
  void note(const std::vector<at::Tensor>& params) {
    made_.clear();
    older_ = defined_among(params);
    held_.clear();
  }
  /// Called as a step begins. What the last step has made is not the program's, even if the program refers to it.
  void begin(const std::vector<at::Tensor>& params) {
    Gradients standing = defined_among(params);
    for (const auto& made : made_) standing.erase(made.first);
    older_ = std::move(standing);
    held_.clear();
  }
  /// Called as a step ends.
  void end(const std::vector<at::Tensor>& params) {
    made_ = defined_among(params);
    for (const auto& older : older_) made_.erase(older.first);
    begin(params);
  }

  /// Finds them among the gradients of `params`, to which steppe itself holds no reference at this moment.
  void find(const std::vector<at::Tensor>& params) {
    std::unordered_map<const c10::StorageImpl*, size_t> of_params;
    for (const at::Tensor& param : params)
      if (memory_of(param.grad()) != nullptr) ++of_params[memory_of(param.grad())];
    held_.clear();
    for (const at::Tensor& param : params) {
      const at::Tensor& gradient = param.grad();
      if (!gradient.defined() || gradient.requires_grad()) continue;
      const c10::StorageImpl* memory = memory_of(gradient);
      const bool is_shared = memory != nullptr && gradient.storage().use_count() > of_params[memory];
      const bool is_section = memory != nullptr && memory->nbytes() > gradient.nbytes();
      const bool is_older = older_.count(gradient.unsafeGetTensorImpl()) != 0;
      if (is_older ? is_shared || gradient.use_count() > 1 : is_shared && is_section)
        held_.emplace(gradient.unsafeGetTensorImpl(), gradient);
    }
  }

  bool has(const at::Tensor& gradient) const { return held_.count(gradient.unsafeGetTensorImpl()) != 0; }

  /// Does what zero_grad() of the LibTorch in use does (to none from 2.0 on, zeros before), but old gradients stay
  /// unchanged for code that refers to them; the program's own become zero in place.
  void clear(const at::Tensor& param) const {
    if (!param.grad().defined()) return;
    if (has(param.grad())) {
      const c10::NoGradGuard no_grad;
      param.mutable_grad().zero_();
      return;
    }
#if TORCH_VERSION_MAJOR < 2
    param.mutable_grad() = at::zeros_like(param.grad());
#else
    param.mutable_grad() = at::Tensor();
#endif
  }

  /// Makes it the parameter's gradient.
  void assign(const at::Tensor& param, const at::Tensor& gradient) const {
    if (gradient.is_same(param.grad())) return;
    const c10::NoGradGuard no_grad;
    if (gradient.defined() && param.grad().defined() && has(param.grad()))
      param.mutable_grad().copy_(gradient);
    else
      param.mutable_grad() = gradient;
  }

  /// The gradient as it is now, whatever happens to the program's own.
  at::Tensor kept(const at::Tensor& gradient) const {
    return gradient.defined() && has(gradient) ? gradient.detach().clone() : gradient;
  }

 private:
  using Gradients = std::unordered_map<const c10::TensorImpl*, WeakTensor>;

  static Gradients defined_among(const std::vector<at::Tensor>& params) {
    Gradients found;
    for (const at::Tensor& param : params)
      if (param.grad().defined()) found.emplace(param.grad().unsafeGetTensorImpl(), weak(param.grad()));
    return found;
  }

  Gradients older_, made_;  // made_: by the last step
  std::unordered_map<const c10::TensorImpl*, at::Tensor> held_;
};

/// While it lives the parameters have no gradients; afterwards they have theirs again.
class GradientsAside {
 public:
  explicit GradientsAside(std::vector<at::Tensor> params) : params_(std::move(params)) {
    for (const at::Tensor& param : params_) kept_.push_back(std::exchange(param.mutable_grad(), at::Tensor()));
  }
  ~GradientsAside() {
    for (size_t i = 0; i < params_.size(); ++i) params_[i].mutable_grad() = std::move(kept_[i]);
  }
  GradientsAside(const GradientsAside&) = delete;
  GradientsAside& operator=(const GradientsAside&) = delete;

 private:
  const std::vector<at::Tensor> params_;
  std::vector<at::Tensor> kept_;
};

/// Keeps pass 2 from the gradients of parameters that are not the optimizer's: at the end of its scope they are those
/// of pass 1, which another optimizer would have without a second pass.
class OthersGradients {
 public:
  explicit OthersGradients(const std::vector<at::Tensor>& params) {
    for (const at::Tensor& param : params) {
      if (!param.requires_grad() && !param.grad().defined()) continue;
      Kept& kept = kept_.emplace_back();
      kept.param = param;
      kept.gradient = param.grad();
      if (kept.gradient.defined() && (kept.gradient.use_count() > 2 ||
                                      (memory_of(kept.gradient) != nullptr && kept.gradient.storage().use_count() > 1)))
        kept.copy = kept.gradient.detach().clone();
    }
    for (const Kept& kept : kept_)  // nothing throws from here on
      if (!kept.copy.defined()) kept.param.mutable_grad() = at::Tensor();
  }
  OthersGradients(const OthersGradients&) = delete;
  OthersGradients& operator=(const OthersGradients&) = delete;
  ~OthersGradients() {
    const c10::NoGradGuard no_grad;
    for (Kept& kept : kept_) try {
        if (kept.copy.defined()) kept.gradient.copy_(kept.copy);
        kept.param.mutable_grad() = std::move(kept.gradient);
      } catch (const std::exception& error) {
        TORCH_WARN("steppe: a gradient of another optimizer's parameter could not be restored: ", error.what());
      }
  }

 private:
  struct Kept {
    at::Tensor param, gradient, copy;
  };
  std::vector<Kept> kept_;
};

}  // namespace step
STEPPE_NAMESPACE_END
