// A module's buffers (BatchNorm statistics, counters, custom ones) put back after a pass that must not move them.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <exception>
#include <utility>
#include <vector>

namespace steppe::step {

/// Copies the buffers when made and writes them back, bit for bit, at the end of its scope or by restore().
///
/// Buffers are written in place: every tensor keeps its address. Memory: one copy of the buffers while it lives.
class BuffersGuard {
 public:
  explicit BuffersGuard(std::vector<at::Tensor> buffers) : buffers_(std::move(buffers)) {
    const c10::NoGradGuard no_grad;
    saved_.reserve(buffers_.size());
    for (const at::Tensor& buffer : buffers_) saved_.push_back(buffer.detach().clone());
  }

  BuffersGuard(const BuffersGuard&) = delete;
  BuffersGuard& operator=(const BuffersGuard&) = delete;

  ~BuffersGuard() {
    try {
      restore();
    } catch (const std::exception& error) {
      TORCH_WARN("steppe: the model's buffers could not be put back: ", error.what());
    }
  }

  void restore() {
    const c10::NoGradGuard no_grad;
    for (size_t i = 0; i < saved_.size(); ++i) buffers_[i].detach().copy_(saved_[i]);
    dismiss();
  }

  /// Leaves the buffers as they are now.
  void dismiss() { saved_.clear(); }

 private:
  std::vector<at::Tensor> buffers_, saved_;
};

}  // namespace steppe::step
