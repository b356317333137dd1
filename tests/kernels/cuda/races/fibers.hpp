// The threads of a launch, of all its blocks, as fibers: one runs at a time, and at any access it may be another's
// turn. SPDX-License-Identifier: MIT
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <stdexcept>
#include <vector>

namespace steppe::races {

class Fibers {
 public:
  /// Runs body(0) ... body(count - 1). Throws where some wait for others that never come.
  void run(size_t count, uint64_t seed, const std::function<void(size_t)>& body) {
    random_.seed(seed);
    // From a few accesses at a time to so many that blocks end before others begin.
    turn_ = uint64_t{8} << 4 * (random_() % 3);
    draw_turn();
    body_ = &body;
    ended_ = 0;
    if (stacks_.size() < count * kStack) stacks_.resize(count * kStack);
    contexts_.resize(count);
    urgency_.resize(count);
    for (size_t i = 0; i < count; ++i) start(i);
    running_ = this;
    swapcontext(&home_, &contexts_[most_urgent()]);
    if (ended_ < count) throw std::logic_error("some threads wait for others, which have ended or wait elsewhere");
  }

  size_t current() const { return current_; }
  uint64_t switches() const { return switches_; }
  bool have_on_stacks(uintptr_t address) const {
    const auto begin = reinterpret_cast<uintptr_t>(stacks_.data());
    return address - begin < stacks_.size();
  }

  /// A point where others may go on.
  void pause() {
    if (--left_ > 0) return;
    draw_turn();
    urgency_[current_] = draw_urgency();
    leave();
  }
  /// Until another calls wake().
  void sleep() {
    urgency_[current_] = 0;
    leave();
  }
  void wake(size_t fiber) { urgency_[fiber] = draw_urgency(); }

 private:
  static constexpr size_t kStack = size_t{1} << 16;

  /// A turn is `turn_` accesses long on average.
  void draw_turn() { left_ = 1 + random_() % (2 * turn_); }
  uint32_t draw_urgency() { return 1 + static_cast<uint32_t>(random_() >> 33); }

  size_t most_urgent() {
    current_ = static_cast<size_t>(std::max_element(urgency_.begin(), urgency_.end()) - urgency_.begin());
    return current_;
  }

  void leave() {
    const size_t from = current_, to = most_urgent();
    if (to == from && urgency_[to] > 0) return;
    ++switches_;
    swapcontext(&contexts_[from], urgency_[to] > 0 ? &contexts_[to] : &home_);
  }

  void start(size_t i) {
    ucontext_t& context = contexts_[i];
    getcontext(&context);
    context.uc_stack.ss_sp = stacks_.data() + i * kStack;
    context.uc_stack.ss_size = kStack;
    context.uc_link = nullptr;
    makecontext(&context, &Fibers::enter, 0);
    wake(i);
  }

  static void enter() {
    (*running_->body_)(running_->current_);
    ++running_->ended_;
    running_->sleep();
  }

  static inline Fibers* running_ = nullptr;  // makecontext passes no pointers

  std::vector<char> stacks_;
  std::vector<ucontext_t> contexts_;
  std::vector<uint32_t> urgency_;  ///< 0: it waits, or has ended
  std::mt19937_64 random_;
  ucontext_t home_{};
  const std::function<void(size_t)>* body_ = nullptr;
  size_t current_ = 0, ended_ = 0;
  uint64_t turn_ = 1, left_ = 1, switches_ = 0;
};

}  // namespace steppe::races
