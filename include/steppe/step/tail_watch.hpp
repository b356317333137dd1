// A warning where the phase that was to be perturbed never began.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <utility>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Warns when an optimizer is destroyed that has taken steps, but none of its tail. Moves with the optimizer.
class TailWatch {
 public:
  TailWatch() = default;
  TailWatch(TailWatch&& other) noexcept
      : steps_(std::exchange(other.steps_, 0)), first_(other.first_), total_(other.total_) {}
  TailWatch& operator=(TailWatch&& other) noexcept {
    std::swap(steps_, other.steps_);
    std::swap(first_, other.first_);
    std::swap(total_, other.total_);
    return *this;
  }
  ~TailWatch() {
    if (steps_ == 0 || steps_ > first_ || first_ >= total_) return;
    TORCH_WARN("steppe: the training ended after ", steps_,
               " steps, before the tail that was to be perturbed, which begins at step ", first_,
               "; set policy().total() to the number of steps that are made, unless the training continues elsewhere");
  }

  void see(int64_t steps, int64_t first_of_tail, int64_t total) {
    steps_ = steps;
    first_ = first_of_tail;
    total_ = total;
  }

 private:
  int64_t steps_ = 0, first_ = 0, total_ = 0;
};

}  // namespace step
STEPPE_NAMESPACE_END
