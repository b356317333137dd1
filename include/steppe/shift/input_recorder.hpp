// The inputs of layers during an ordinary forward, whatever the model around them.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <steppe/shift/applied_weight.hpp>
#include <steppe/step/observed.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace shift {

/// While it lives, on this thread, calls seen(i, input) whenever a linear layer or a 2-d convolution is applied with
/// the i-th of `weights`, by its module or by linear, conv2d, matmul, mm, bmm, mv, addmm, baddbmm, addmv or einsum.
///
/// LibTorch's C++ modules have no hooks; but its operations can be observed, and a layer is recognized by the memory of
/// its weight. Only one may live at a time on a thread. What is not seen: weights that are copied or computed before
/// they are used (autocast, weight norm), other threads, and inputs of traced or compiled graphs.
class InputRecorder {
 public:
  /// Called with the index of a layer's weight and an input of it, features last.
  using Seen = std::function<void(size_t layer, const at::Tensor& input)>;

  /// Throws c10::Error if this thread has an InputRecorder.
  InputRecorder(std::vector<at::Tensor> weights, Seen seen)
      : weights_(std::move(weights)), other_uses_(weights_.size()), seen_(std::move(seen)) {
    TORCH_CHECK(current() == nullptr, "steppe: an InputRecorder is already active on this thread");
    current() = this;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&started, &ended).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  }

  InputRecorder(const InputRecorder&) = delete;
  InputRecorder& operator=(const InputRecorder&) = delete;

  /// Throws what seen() has thrown; LibTorch lets no exception of an observer pass. Call it after the forward.
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

  /// The operators of this thread that used a layer's weight in a form that is not recognized.
  const std::vector<std::string>& other_uses(size_t layer) const { return other_uses_[layer]; }

  ~InputRecorder() {
    at::removeCallback(handle_);
    current() = nullptr;
  }

 private:
  /// Marks the operations that belong to an input that was seen: those inside of them are not seen again.
  struct Inside : public at::ObserverContext {
    explicit Inside(InputRecorder* by) : recorder(by) { ++recorder->depth_; }
    ~Inside() override { --recorder->depth_; }
    InputRecorder* recorder;
  };

  static InputRecorder*& current() {
    static thread_local InputRecorder* recorder = nullptr;
    return recorder;
  }

  static std::unique_ptr<at::ObserverContext> started(const at::RecordFunction& operation) {
    InputRecorder* recorder = current();
    if (recorder == nullptr || recorder->depth_ > 0) return nullptr;
    const auto inputs = step::inputs_of(operation);
    const c10::ArrayRef<c10::IValue> arguments(inputs.data(), inputs.size());  // LibTorch's versions differ in const
    for (size_t i = 0; i < recorder->weights_.size(); ++i) {
      if (!uses(operation.name(), arguments, recorder->weights_[i])) continue;
      auto inside = std::make_unique<Inside>(recorder);  // also for what seen() itself does
      if (recorder->take(i, operation.name(), arguments)) return inside;
    }
    return nullptr;
  }
  static void ended(const at::RecordFunction&, at::ObserverContext*) {}

  bool take(size_t layer, const char* name, c10::ArrayRef<c10::IValue> arguments) {
    const std::optional<at::Tensor> input = input_of(name, arguments, weights_[layer]);
    if (!input) {
      std::vector<std::string>& names = other_uses_[layer];
      if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
      return false;
    }
    try {
      if (!failure_) seen_(layer, *input);
    } catch (...) {
      failure_ = std::current_exception();
    }
    return true;
  }

  std::vector<at::Tensor> weights_;
  std::vector<std::vector<std::string>> other_uses_;
  Seen seen_;
  at::CallbackHandle handle_ = 0;
  std::exception_ptr failure_;
  int depth_ = 0;
};

}  // namespace shift
STEPPE_NAMESPACE_END
