// One optimizer's part of a recording: its tensors, and the backward passes that led to its gradients.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <steppe/step/record.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

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

/// A gradient as a backward() left it. The tensor is not held, but no other tensor gets its address.
class GradientNote {
 public:
  GradientNote() = default;
  static GradientNote of(const at::Tensor& param) {
    GradientNote note;
    const at::Tensor& gradient = param.grad();
    if (!gradient.defined()) return note;
    note.tensor_ = gradient.unsafeGetTensorImpl();
    note.keeps_address_ = weak(gradient);
    note.version_ = version_of(gradient);
    return note;
  }
  bool is_defined() const { return tensor_ != nullptr; }
  friend bool operator==(const GradientNote& a, const GradientNote& b) {
    return a.tensor_ == b.tensor_ && a.version_ == b.version_;
  }

 private:
  const c10::TensorImpl* tensor_ = nullptr;
  WeakTensor keeps_address_ = weak(at::Tensor());
  int64_t version_ = 0;
};

/// Why something cannot be repeated, and what to do about it.
struct Refusal {
  std::string why;
  std::string cure;
  bool empty() const { return why.empty(); }
};

namespace refusals {

inline Refusal changed(const std::string& how) {
  return {how,
          "Use clip_grad_norm(), clip_grad_value() or a hook by before_descent() (unscaling, an all-reduce) of the "
          "optimizer instead"};
}
inline Refusal not_cleared() {
  return {"the gradients were not cleared before backward(), which has added to old ones",
          "Call zero_grad() in each iteration"};
}
inline Refusal create_graph() {
  return {"backward() was called with create_graph", "A gradient that is part of a loss is made by no operator"};
}
inline Refusal unknown_root(const std::string& name) {
  return {
      "backward() began at " + name +
          ", which is not a recorded operator: a torch::autograd::Function, a TorchScript graph that LibTorch has "
          "compiled, or a forward pass on another thread or before the optimizer was made",
      "torch::jit::setGraphExecutorOptimize(false) runs a TorchScript graph one operator at a time; replay(true) on "
      "the thread that trains moves the recording there"};
}
inline Refusal gradient_of_a_gradient() {
  return {"backward() was given a gradient that was computed from one", "Call backward() once, on the whole"};
}
inline Refusal hook(const std::string& name) {
  return {"a hook is registered at " + name + " between the loss and the parameters, and would not be called again",
          "Hooks of parameters are called; or change gradients in before_descent()"};
}
inline Refusal other_step() {
  return {"another optimizer, whose parameters the pass has read, has made a step since",
          "Give one optimizer all parameters, in groups"};
}
inline Refusal added_parameters() {
  return {"parameters were added to the optimizer since its pass, which did not include them",
          "Call zero_grad() and make the pass again"};
}

}  // namespace refusals

/// One optimizer's part of a recording.
struct Participant {
  uint64_t bit = 0;
  std::vector<at::Tensor> params, buffers;
  std::vector<BackwardCall> backwards;  ///< since its gradients were cleared
  std::vector<GradientNote> notes;      ///< its gradients after the last of them
  uint64_t since = 0;                   ///< values with a number up to this one were made before its present step
  bool is_iterating = false;            ///< where its iteration begins is known, or its forward pass is in progress
  bool has_stepped = false;
  bool has_old_gradients = false;  ///< those of the last step, which have not been cleared
  bool reads_statistics = false;   ///< some operator normalizes by running statistics
  int64_t steps_of_others = 0;     ///< since its own last one
  Refusal refusal;                 ///< why its gradients are not those of the roots, if they are not
  std::unordered_map<const c10::TensorImpl*, at::Tensor> buffers_before;  ///< of those that an operator wrote to
};

}  // namespace step
STEPPE_NAMESPACE_END
