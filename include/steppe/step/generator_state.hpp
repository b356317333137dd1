// The state of a random number generator, cheap to note and to compare.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// The state of one generator when it was noted: the engine itself on the CPU, the few bytes of get_state() elsewhere.
class GeneratorState {
 public:
  GeneratorState() = default;
  explicit GeneratorState(at::Generator generator) : generator_(std::move(generator)) { note(); }

  /// Notes the current state.
  void note() {
    const std::lock_guard<std::mutex> lock(generator_.mutex());
    if (auto* cpu = cpu_generator()) {
      engine_ = cpu->engine().data();
      next_float_ = cpu->next_float_normal_sample();
      next_double_ = cpu->next_double_normal_sample();
    } else {
      other_ = generator_.get_state();
    }
  }

  void set() const {
    at::Generator generator = generator_;
    const std::lock_guard<std::mutex> lock(generator.mutex());
    if (auto* cpu = cpu_generator()) {
      at::mt19937 engine;
      engine.set_data(engine_);
      cpu->set_engine(engine);
      cpu->set_next_float_normal_sample(next_float_);
      cpu->set_next_double_normal_sample(next_double_);
    } else {
      generator.set_state(other_);
    }
  }

  const at::Generator& generator() const { return generator_; }

 private:
  at::CPUGeneratorImpl* cpu_generator() const {
    return generator_.device().is_cpu() ? dynamic_cast<at::CPUGeneratorImpl*>(generator_.unsafeGetGeneratorImpl())
                                        : nullptr;
  }

  /// Whether nothing was drawn in between. An engine makes a new table every 624 numbers, which two of its words show.
  friend bool operator==(const GeneratorState& a, const GeneratorState& b) {
    if (a.other_.defined())
      return b.other_.defined() && a.other_.numel() == b.other_.numel() &&
             std::memcmp(a.other_.data_ptr(), b.other_.data_ptr(), a.other_.nbytes()) == 0;
    return a.engine_.left_ == b.engine_.left_ && a.engine_.next_ == b.engine_.next_ &&
           a.engine_.seed_ == b.engine_.seed_ && a.engine_.state_[0] == b.engine_.state_[0] &&
           a.engine_.state_[1] == b.engine_.state_[1] && a.next_float_ == b.next_float_ &&
           a.next_double_ == b.next_double_;
  }

  mutable at::Generator generator_;
  at::mt19937_data_pod engine_ = {};
  decltype(std::declval<at::CPUGeneratorImpl&>().next_float_normal_sample()) next_float_;
  decltype(std::declval<at::CPUGeneratorImpl&>().next_double_normal_sample()) next_double_;
  at::Tensor other_;
};

/// LibTorch's own generators: the CPU's, then those of the CUDA devices among `devices`.
inline std::vector<at::Generator> default_generators(const std::vector<c10::Device>& devices) {
  std::vector<at::Generator> found = {at::globalContext().defaultGenerator(c10::Device(c10::DeviceType::CPU))};
  for (const c10::Device& device : devices)
    if (device.is_cuda()) found.push_back(at::globalContext().defaultGenerator(device));
  return found;
}

}  // namespace step
STEPPE_NAMESPACE_END
