// A stand-in for the launch of a kernel: the host runs its blocks one after the other, the threads of a block as
// fibers. SPDX-License-Identifier: MIT
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

namespace steppe::kernels::cuda {

/// The threads of one block. Between two barriers they run one at a time, in an order that is drawn anew each time, so
/// that a missing barrier shows. What only a warp waits for keeps no other warp from running on.
class Fibers {
 public:
  Fibers(int count, uint64_t seed)
      : fibers_(static_cast<size_t>(count)), warps_((fibers_.size() + kLanes - 1) / kLanes), random_(seed) {
    for (Fiber& fiber : fibers_) fiber.stack.reset(new char[kStack]);
  }

  /// Runs body(thread) in every fiber. Throws where some wait for others that never come.
  template <class Body>
  void run(const Body& body) {
    body_ = [](const void* function, int thread) { (*static_cast<const Body*>(function))(thread); };
    function_ = &body;
    for (Fiber& fiber : fibers_) start(fiber);
    std::vector<size_t> order(fibers_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    for (int rounds = 0; count(State::Ended) < fibers_.size(); ++rounds) {
      std::shuffle(order.begin(), order.end(), random_);
      for (const size_t i : order) {
        if (fibers_[i].state != State::Ready) continue;
        current_ = i;
        swapcontext(&home_, &fibers_[i].context);
      }
      if (count(State::AtBarrier) == fibers_.size()) {
        for (Fiber& fiber : fibers_) fiber.state = State::Ready;
        rounds = 0;
      }
      if (count(State::AtBarrier) > 0 && count(State::Ready) == 0)
        throw std::logic_error("some threads have ended, others wait at a barrier");
      if (rounds > kMostRounds) throw std::logic_error("some threads of a warp wait for others");
    }
  }

  /// Waits for all threads of the block.
  void wait() { leave(State::AtBarrier); }

  /// What thread `from`, of the same warp, gives.
  double exchange(double given, int from) {
    fibers_[current_].given = given;
    wait_for_warp();
    const double taken = fibers_[static_cast<size_t>(from)].given;
    wait_for_warp();
    return taken;
  }

  int thread() const { return static_cast<int>(current_); }

 private:
  static constexpr size_t kStack = size_t{1} << 18, kLanes = 32;
  static constexpr int kMostRounds = 1 << 20;

  enum class State { Ready, AtBarrier, Ended };
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state = State::Ended;
    double given = 0.0;
  };
  struct Warp {
    size_t arrived = 0;
    uint64_t meetings = 0;
  };

  size_t count(State state) const {
    return static_cast<size_t>(
        std::count_if(fibers_.begin(), fibers_.end(), [state](const Fiber& each) { return each.state == state; }));
  }

  void leave(State state) {
    Fiber& fiber = fibers_[current_];
    fiber.state = state;
    swapcontext(&fiber.context, &home_);
  }

  void wait_for_warp() {
    const size_t index = current_ / kLanes;
    Warp& warp = warps_[index];
    const uint64_t meeting = warp.meetings;
    if (++warp.arrived == std::min(kLanes, fibers_.size() - index * kLanes)) {
      warp.arrived = 0;
      ++warp.meetings;
    }
    while (warp.meetings == meeting) leave(State::Ready);
  }

  void start(Fiber& fiber) {
    fiber.state = State::Ready;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    // makecontext passes integers only.
    const auto self = reinterpret_cast<uintptr_t>(this);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(&Fibers::enter), 2, static_cast<unsigned>(self >> 32),
                static_cast<unsigned>(self));
  }

  static void enter(unsigned high, unsigned low) {
    auto* const self = reinterpret_cast<Fibers*>((uintptr_t{high} << 32) | uintptr_t{low});
    self->body_(self->function_, self->thread());
    self->leave(State::Ended);
  }

  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::mt19937_64 random_;
  ucontext_t home_{};
  size_t current_ = 0;
  void (*body_)(const void*, int) = nullptr;
  const void* function_ = nullptr;
};

/// What a kernel sees of its block; see block.hpp.
class HostBlock {
 public:
  HostBlock(Fibers& fibers, int64_t index, int64_t count)
      : fibers_(&fibers), index_(static_cast<int>(index)), count_(static_cast<int>(count)) {}

  int index() const { return index_; }
  int count() const { return count_; }
  int thread() const { return fibers_->thread(); }
  void sync() const { fibers_->wait(); }
  double shuffle_down(double value, int by, int width) const {
    const bool is_there = thread() % width + by < width;
    return fibers_->exchange(value, is_there ? thread() + by : thread());
  }
  void publish() const {}
  template <class Count>
  Count add(Count* to, Count value) const {
    const Count before = *to;
    *to += value;
    return before;
  }

 private:
  Fibers* fibers_;
  int index_, count_;
};

/// Blocks in an order that is drawn anew for each launch.
class HostLaunch {
 public:
  /// That kernels are compiled for.
  using ThreadCounts = std::integer_sequence<int, 4, 8, 16, 32, 256>;

  HostLaunch(int threads, int64_t blocks, uint64_t seed) : fibers_(threads, seed), blocks_(blocks), random_(seed) {}

  template <class Kernel>
  void operator()(const Kernel& kernel) {
    using Shared = typename Kernel::Shared;
    ++launches_;
    std::vector<int64_t> order(static_cast<size_t>(blocks_));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::shuffle(order.begin(), order.end(), random_);
    for (const int64_t index : order) {
      // Shared memory is uninitialized.
      alignas(16) std::byte memory[sizeof(Shared)];
      std::memset(memory, 0xa5, sizeof(memory));
      const HostBlock block(fibers_, index, blocks_);
      fibers_.run([&](int) { kernel(block, *reinterpret_cast<Shared*>(memory)); });
    }
  }

  int launches() const { return launches_; }

 private:
  Fibers fibers_;
  int64_t blocks_;
  std::mt19937_64 random_;
  int launches_ = 0;
};

}  // namespace steppe::kernels::cuda
