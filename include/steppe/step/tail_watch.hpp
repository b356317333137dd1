// A word where the phase that was to be perturbed never began.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <utility>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Warns at the end of an optimizer that has taken steps, but none of its tail. Moves with the optimizer.
class TailWatch {
 public:
  TailWatch() = default;
  TailWatch(TailWatch&& other) noexcept : steps_(std::exchange(other.steps_, 0)), first_(other.first_) {}
  TailWatch& operator=(TailWatch&& other) noexcept {
    std::swap(steps_, other.steps_);
    std::swap(first_, other.first_);
    return *this;
  }
  ~TailWatch() {
    if (steps_ == 0 || steps_ > first_) return;
    TORCH_WARN("steppe: the training ended after ", steps_,
               " steps, before the tail that was to be perturbed, which "
               "begins at step ",
               first_, "; set policy().total() to the number of steps that are made");
  }

  void see(int64_t steps, int64_t first_of_tail) {
    steps_ = steps;
    first_ = first_of_tail;
  }

 private:
  int64_t steps_ = 0, first_ = 0;
};

}  // namespace step
STEPPE_NAMESPACE_END
