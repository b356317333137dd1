// One optimizer's part of a recording: its tensors, and the backward passes that led to its gradients.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/any.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <steppe/step/record.hpp>

namespace steppe::step {

/// A tensor that backward() was called on, and the gradient it was given.
struct Root {
  std::shared_ptr<Record> from;
  uint32_t output = 0;
  Input gradient;
  at::Tensor loss;  ///< if it has one element
};

/// One call of backward().
struct BackwardCall {
  uint64_t number = 0;
  std::vector<Root> roots;
  bool keeps_graph = false;
};

/// A gradient as a backward() left it.
struct GradientNote {
  const c10::TensorImpl* tensor = nullptr;
  int64_t version = 0;

  static GradientNote of(const at::Tensor& param) {
    const at::Tensor& gradient = param.grad();
    return gradient.defined() ? GradientNote{gradient.unsafeGetTensorImpl(), version_of(gradient)} : GradientNote();
  }
  friend bool operator==(const GradientNote& a, const GradientNote& b) {
    return a.tensor == b.tensor && a.version == b.version;
  }
};

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

/// One optimizer's part of a recording.
struct Participant {
  uint64_t bit = 0;
  std::vector<at::Tensor> params, buffers;
  std::vector<BackwardCall> backwards;  ///< since its gradients were cleared
  std::vector<GradientNote> notes;      ///< its gradients after the last of them
  uint64_t since = 0;                   ///< values with a number up to this one were made before its present step
  bool is_iterating = false;            ///< where its iteration begins is known, or its forward pass is under way
  bool has_stepped = false;
  bool has_old_gradients = false;  ///< those of the last step, which have not been cleared
  bool reads_statistics = false;   ///< some operator normalizes by running statistics
  int64_t steps_of_others = 0;     ///< since its own last one
  std::string refusal;             ///< why its gradients are not those of the roots, if they are not
  std::unordered_map<const c10::TensorImpl*, at::Tensor> buffers_before;  ///< of those that an operator wrote to
};

}  // namespace steppe::step
