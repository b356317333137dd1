// The inputs of an observed operator, in every build type; and a pause for observers.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <c10/util/ArrayRef.h>

#include <string>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// While one lives nothing is recorded on this thread.
class Pause {
 public:
  Pause() { ++depth(); }
  ~Pause() { --depth(); }
  Pause(const Pause&) = delete;
  Pause& operator=(const Pause&) = delete;
  static bool on() { return depth() > 0; }

 private:
  static int& depth() {
    static thread_local int pauses = 0;
    return pauses;
  }
};

/// While it lives, LibTorch does not even call the observer, if that is the only one: nothing would be recorded.
class Unobserved {
 public:
  Unobserved() {
    const auto callbacks = at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION);
    hides_ = callbacks.has_value() && callbacks->callbacks_.size() == 1;
    if (hides_) at::enableRecordFunction(false);
  }
  ~Unobserved() {
    if (hides_) at::enableRecordFunction(true);
  }
  Unobserved(const Unobserved&) = delete;
  Unobserved& operator=(const Unobserved&) = delete;

 private:
  const Pause pause_;
  bool hides_ = false;
};

/// Arguments of normalization operators, by the names in their schemas: statistics that training updates, and the flag
/// that decides whether it does.
inline bool names_a_statistic(const std::string& argument) {
  return argument == "running_mean" || argument == "running_var";
}
inline bool names_the_training_flag(const std::string& argument) {
  return argument == "training" || argument == "train" || argument == "use_input_stats";
}

#ifdef NDEBUG
inline c10::ArrayRef<const c10::IValue> inputs_of(const at::RecordFunction& operation) { return operation.inputs(); }
#else
// In debug builds inputs() asserts a flag that LibTorch's own libraries, built for release, never set. An explicit
// instantiation may name the private member; the flag lies in padding, so that the layout is the same in both.
c10::ArrayRef<const c10::IValue> inputs_of(const at::RecordFunction& operation);
template <c10::ArrayRef<const c10::IValue> at::RecordFunction::*inputs>
struct InputsOf {
  friend c10::ArrayRef<const c10::IValue> inputs_of(const at::RecordFunction& operation) { return operation.*inputs; }
};
template struct InputsOf<&at::RecordFunction::inputs_>;
#endif

}  // namespace step
STEPPE_NAMESPACE_END
