// Which accesses come before which, whatever the schedule: vector clocks by the rules of CUDA's memory model.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace steppe::races {

/// How far each thread was, by its own clock, when another last heard of it. Empty: nothing was heard.
using Clock = std::vector<uint32_t>;

inline void learn(Clock& mine, const Clock& theirs) {
  mine.resize(std::max(mine.size(), theirs.size()));
  for (size_t i = 0; i < theirs.size(); ++i) mine[i] = std::max(mine[i], theirs[i]);
}

/// What the threads of a launch know of one another.
class Order {
 public:
  /// A launch comes after all that earlier ones have done.
  void begin(size_t threads) {
    for (size_t i = 0; i < threads_.size(); ++i) past_ = std::max(past_, threads_[i].known[i]);
    threads_.assign(threads, {Clock(threads, past_), {}, {}});
    for (size_t i = 0; i < threads; ++i) ++threads_[i].known[i];
    released_.clear();
  }

  const Clock& known_by(size_t thread) const { return threads_[thread].known; }

  /// A barrier of the threads [first, first + count), across which each sees what the others did before it.
  void meet(size_t first, size_t count) {
    Clock all;
    for (size_t i = first; i < first + count; ++i) learn(all, threads_[i].known);
    for (size_t i = first; i < first + count; ++i) {
      threads_[i].known = all;
      ++threads_[i].known[i];
    }
  }

  /// What a thread knows here goes with its later atomics; what its earlier ones have read, it knows from here on.
  void fence(size_t thread) {
    Thread& mine = threads_[thread];
    learn(mine.known, mine.observed);
    mine.published = mine.known;
    ++mine.known[thread];
  }

  /// By itself an atomic orders nothing: it hands over what was published to whoever has a fence after it. It hands on
  /// what earlier ones left there too.
  void atomic(size_t thread, uintptr_t address) {
    Thread& mine = threads_[thread];
    Clock& released = released_[address];
    learn(mine.observed, released);
    learn(released, mine.published);
  }

  /// Who reads what was written plainly hears of no earlier atomic.
  void overwrite(uintptr_t address) { released_.erase(address); }

 private:
  struct Thread {
    Clock known, published, observed;
  };

  std::vector<Thread> threads_;
  std::unordered_map<uintptr_t, Clock> released_;
  uint32_t past_ = 0;
};

}  // namespace steppe::races
