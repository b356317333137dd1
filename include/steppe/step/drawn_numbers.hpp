// Random numbers drawn again by the operators that drew them, and by no others.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/step/draw_observer.hpp>
#include <steppe/step/generator_state.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// What the calls of a pass drew, by operator and number of the call.
class DrawnNumbers {
 public:
  struct Draw {
    GeneratorState before, after;
  };

  bool empty() const { return empty_; }

  /// Adds the draws of the next call of `op`.
  void add(const char* op, std::vector<Draw> draws) {
    empty_ = empty_ && draws.empty();
    calls_[op].push_back(std::move(draws));
  }
  /// The draws of a call; null if there was no such call.
  const std::vector<Draw>* find(const char* op, size_t call) const {
    const auto calls = calls_.find(op);
    return calls == calls_.end() || call >= calls->second.size() ? nullptr : &calls->second[call];
  }

 private:
  std::unordered_map<const char*, std::vector<std::vector<Draw>>> calls_;
  bool empty_ = true;
};

/// Notes what is drawn.
class NotedDraws : public DrawObserver {
 public:
  explicit NotedDraws(std::vector<at::Generator> generators) : DrawObserver(std::move(generators)) {}

  const std::shared_ptr<DrawnNumbers>& numbers() const { return numbers_; }

 private:
  void before(const Drawing&) override {}
  void after(const Drawing& drawing) override {
    std::vector<DrawnNumbers::Draw> draws;
    for (const GeneratorState& stood : drawing.stood) {
      GeneratorState now(stood.generator());
      if (!(now == stood)) draws.push_back({stood, std::move(now)});
    }
    numbers_->add(drawing.op, std::move(draws));
  }

  const std::shared_ptr<DrawnNumbers> numbers_ = std::make_shared<DrawnNumbers>();
};

/// Makes each operator draw what it drew when that was noted. Generators are moved while it runs, and restored
/// afterwards.
class RepeatedDraws : public DrawObserver {
 public:
  RepeatedDraws(std::vector<at::Generator> generators, std::shared_ptr<const DrawnNumbers> numbers)
      : DrawObserver(std::move(generators)), numbers_(std::move(numbers)) {}

 private:
  void before(const Drawing& drawing) override {
    running_.push_back(numbers_->find(drawing.op, calls_[drawing.op]++));
    each(drawing, [](const DrawnNumbers::Draw& draw, const GeneratorState&) { draw.before.set(); });
  }
  void after(const Drawing& drawing) override {
    each(drawing, [&](const DrawnNumbers::Draw& draw, const GeneratorState& stood) {
      if (!(GeneratorState(stood.generator()) == draw.after)) {
        TORCH_WARN_ONCE(
            "steppe: ", drawing.op,
            " drew other random numbers in pass 2 than in pass 1. Either another thread drew from the same generator "
            "at that moment, and some of its numbers may have been drawn twice: give loader workers generators of "
            "their own; or the closure draws another amount in pass 2");
      }
      stood.set();
    });
    running_.pop_back();
  }

  /// Visits the generators that were drawn from, unless the program itself has set one to that state, for example by
  /// manual_seed().
  template <class Visitor>
  void each(const Drawing& drawing, Visitor&& visit) const {
    if (running_.back() == nullptr) return;
    for (const DrawnNumbers::Draw& draw : *running_.back())
      for (const GeneratorState& stood : drawing.stood)
        if (stood.generator() == draw.before.generator() && !(stood == draw.before)) visit(draw, stood);
  }

  const std::shared_ptr<const DrawnNumbers> numbers_;
  std::unordered_map<const char*, size_t> calls_;
  std::vector<const std::vector<DrawnNumbers::Draw>*> running_;  ///< of the operators that run, one within another
};

/// Makes operators draw in sequence from `first` on, and leaves generators as they are: no other code draws these
/// numbers.
class SeparateDraws : public DrawObserver {
 public:
  /// `first`: the states from which generators begin. One that is missing begins from its current state, which is
  /// added.
  SeparateDraws(std::vector<at::Generator> generators, std::shared_ptr<std::vector<GeneratorState>> first)
      : DrawObserver(std::move(generators)), first_(std::move(first)) {}

  bool drew() const { return drew_; }
  /// The state that a generator has reached; null if no operator might have drawn from it.
  const GeneratorState* state_of(const at::Generator& generator) const {
    for (const GeneratorState& state : states_)
      if (state.generator() == generator) return &state;
    return nullptr;
  }

 private:
  void before(const Drawing& drawing) override {
    for (const GeneratorState& stood : drawing.stood) state_from(stood).set();
  }
  void after(const Drawing& drawing) override {
    for (const GeneratorState& stood : drawing.stood) {
      GeneratorState& state = state_from(stood);
      GeneratorState now(stood.generator());
      if (!(now == stood)) stood.set();
      if (now == state) continue;
      drew_ = true;
      state = std::move(now);
    }
  }

  GeneratorState& state_from(const GeneratorState& stood) {
    const auto is_the_same = [&](const GeneratorState& state) { return state.generator() == stood.generator(); };
    const auto own = std::find_if(states_.begin(), states_.end(), is_the_same);
    if (own != states_.end()) return *own;
    const auto begins = std::find_if(first_->begin(), first_->end(), is_the_same);
    return states_.emplace_back(begins != first_->end() ? *begins : first_->emplace_back(stood));
  }

  const std::shared_ptr<std::vector<GeneratorState>> first_;
  std::vector<GeneratorState> states_;
  bool drew_ = false;
};

}  // namespace step
STEPPE_NAMESPACE_END
