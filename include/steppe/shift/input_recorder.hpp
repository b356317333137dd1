// The inputs that layers see during an ordinary forward, whatever the model around them looks like.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <steppe/step/observed.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace shift {

/// While it lives, on this thread, calls seen(i, input) whenever a linear layer or a 2-d convolution is applied with
/// the i-th of `weights`.
///
/// LibTorch's C++ modules have no hooks; but its operations can be observed, and a layer is known by the memory of its
/// weight. One lives at a time on a thread. What is not seen: weights that are copied or computed before they are used
/// (autocast, weight norm), and inputs of traced or compiled graphs.
class InputRecorder {
 public:
  using Seen = std::function<void(size_t layer, const at::Tensor& input)>;

  InputRecorder(std::vector<at::Tensor> weights, Seen seen) : weights_(std::move(weights)), seen_(std::move(seen)) {
    TORCH_CHECK(current() == nullptr, "steppe: an InputRecorder is at work already on this thread");
    current() = this;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&started, &ended).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  }

  InputRecorder(const InputRecorder&) = delete;
  InputRecorder& operator=(const InputRecorder&) = delete;

  /// Throws what seen() has thrown; LibTorch lets nothing pass out of its operations. Call it after the forward.
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

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
    // Which arguments are the input and the weight (transposed, in a product).
    struct Form {
      const char* name;
      size_t input, weight;
    };
    for (const Form& form : {Form{"aten::linear", 0, 1}, Form{"aten::addmm", 1, 2}, Form{"aten::matmul", 0, 1},
                             Form{"aten::conv2d", 0, 1}, Form{"aten::convolution", 0, 1}}) {
      if (std::strcmp(operation.name(), form.name) != 0) continue;
      const auto inputs = step::inputs_of(operation);
      if (inputs.size() <= form.weight || !inputs[form.input].isTensor() || !inputs[form.weight].isTensor()) continue;
      return recorder->take(inputs[form.input].toTensor(), inputs[form.weight].toTensor());
    }
    return nullptr;
  }
  static void ended(const at::RecordFunction&, at::ObserverContext*) {}

  std::unique_ptr<at::ObserverContext> take(const at::Tensor& input, const at::Tensor& weight) {
    for (size_t i = 0; i < weights_.size(); ++i) {
      if (!weight.defined() || !weight.is_alias_of(weights_[i]) || weight.numel() != weights_[i].numel() ||
          weight.storage_offset() != weights_[i].storage_offset())
        continue;
      auto inside = std::make_unique<Inside>(this);  // also for what seen() itself does
      try {
        if (!failure_) seen_(i, input);
      } catch (...) {
        failure_ = std::current_exception();
      }
      return inside;
    }
    return nullptr;
  }

  std::vector<at::Tensor> weights_;
  Seen seen_;
  at::CallbackHandle handle_ = 0;
  std::exception_ptr failure_;
  int depth_ = 0;
};

}  // namespace shift
STEPPE_NAMESPACE_END
