// The same random numbers for both passes of a step, so that dropout drops the same units.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <steppe/step/drawn_numbers.hpp>
#include <steppe/step/generator_state.hpp>
#include <steppe/step/operator_observer.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Makes the operators of a second pass draw what those of the first drew. Generators are moved only while such an
/// operator runs: what other threads draw is neither repeated nor lost. At the end they are as if there had been one
/// pass.
///
/// This covers operators that LibTorch's dispatcher sees on the thread that makes the pass. Where none has drawn yet,
/// operators of pass 1 need not be observed (which costs 0.2 us each): if one of LibTorch's generators has moved in it
/// nevertheless, pass 2 draws from a copy of its state before pass 1.
class RandomNumbers {
 public:
  RandomNumbers(const std::vector<c10::Device>& devices, bool observed)
      : generators_(default_generators(devices)), observed_(observed) {}

  void begin_first() {
    if (observed_) {
      noted_ = std::make_shared<NotedDraws>(generators_);
      observation_.emplace(noted_);
    } else {
      for (const at::Generator& generator : generators_) begun_->emplace_back(generator);
    }
  }
  void end_first() {
    observation_.reset();
    if (noted_) drew_ = !noted_->numbers()->empty();
    for (const GeneratorState& begun : *begun_) {
      ended_.emplace_back(begun.generator());
      moved_ = moved_ || !(ended_.back() == begun);
    }
  }

  void begin_second() {
    if (noted_ && drew_)
      observation_.emplace(std::make_shared<RepeatedDraws>(generators_, noted_->numbers()));
    else if (moved_)
      observation_.emplace(separate_ = std::make_shared<SeparateDraws>(generators_, begun_));
  }
  void end_second() {
    observation_.reset();
    if (!separate_ || !separate_->drew()) return;
    drew_ = true;
    for (const GeneratorState& ended : ended_) {
      const GeneratorState* state = separate_->state_of(ended.generator());
      if (state != nullptr && !(*state == ended)) {
        TORCH_WARN_ONCE(
            "steppe: pass 2 of a step, the first one in which the closure drew random numbers, drew others than pass "
            "1, because another thread drew from the same generator; the next steps draw the same ones");
      }
    }
  }

  /// Whether the closure draws random numbers, so that its next pass should be observed.
  bool drew() const { return drew_; }

 private:
  std::vector<at::Generator> generators_;
  bool observed_, moved_ = false, drew_ = false;
  std::shared_ptr<std::vector<GeneratorState>> begun_ = std::make_shared<std::vector<GeneratorState>>();
  std::vector<GeneratorState> ended_;
  std::shared_ptr<NotedDraws> noted_;
  std::shared_ptr<SeparateDraws> separate_;
  std::optional<Observation> observation_;
};

}  // namespace step
STEPPE_NAMESPACE_END
