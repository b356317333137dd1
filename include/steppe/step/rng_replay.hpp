// The same random numbers for both passes, so that dropout drops the same units.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <exception>
#include <mutex>
#include <utility>
#include <vector>

namespace steppe::step {

/// Remembers the default generators of the CPU and of the given CUDA devices when made; replay() sets them back, and
/// the end of the scope leaves them where they stood when replay() was called, as if there had been one pass.
class RngReplay {
 public:
  explicit RngReplay(const std::vector<c10::Device>& devices) {
    remember(at::globalContext().defaultGenerator(c10::Device(c10::DeviceType::CPU)));
    for (const c10::Device& device : devices)
      if (device.is_cuda()) remember(at::globalContext().defaultGenerator(device));
  }

  RngReplay(const RngReplay&) = delete;
  RngReplay& operator=(const RngReplay&) = delete;

  ~RngReplay() {
    try {
      for (size_t i = 0; i < after_.size(); ++i) set(generators_[i], after_[i]);
    } catch (const std::exception& error) {
      TORCH_WARN("steppe: the random number generators could not be set forward: ", error.what());
    }
  }

  void replay() {
    std::vector<at::Tensor> after;
    for (at::Generator& generator : generators_) after.push_back(get(generator));
    for (size_t i = 0; i < generators_.size(); ++i) set(generators_[i], before_[i]);
    after_ = std::move(after);
  }

 private:
  static at::Tensor get(at::Generator& generator) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    return generator.get_state();
  }
  static void set(at::Generator& generator, const at::Tensor& state) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(state);
  }
  void remember(at::Generator generator) {
    before_.push_back(get(generator));
    generators_.push_back(std::move(generator));
  }

  std::vector<at::Generator> generators_;
  std::vector<at::Tensor> before_, after_;
};

}  // namespace steppe::step
