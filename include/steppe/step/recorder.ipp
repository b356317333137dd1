// How an optimizer takes part in a recording.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/step/participant.hpp>
#include <steppe/step/recorder.hpp>
#include <steppe/step/recording.hpp>
#include <steppe/step/replay.hpp>
#include <steppe/version.hpp>

#pragma push_macro("Always")
#undef Always  // of X11

STEPPE_NAMESPACE_BEGIN
namespace step {

/// What a Recorder holds.
class Recorder::Part {
 public:
  Part() = default;
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  ~Part() { leave(); }

  void verify(Verify when) { verify_ = when; }

  void start(std::vector<at::Tensor> params, std::vector<at::Tensor> buffers, bool iterating) {
    leave();
    const std::shared_ptr<Recording> recording = Recording::of_this_thread();
    auto participant = std::make_unique<Participant>();
    participant->params = std::move(params);
    participant->buffers = std::move(buffers);
    for (const at::Tensor& param : participant->params) participant->notes.push_back(GradientNote::of(param));
    participant->is_iterating = iterating;
    if (!recording->join(*participant)) {
      stopped_by_ = ", because 64 other optimizers are on this thread";
      return;
    }
    recording_ = recording;
    participant_ = std::move(participant);
  }

  void stop(const char* call) {
    leave();
    stopped_by_ = std::string(", since ") + call + " was called";
  }

  void learn(std::vector<at::Tensor> params, std::vector<at::Tensor> buffers) {
    if (!recording_) return;
    const auto same = [](const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
      bool all = a.size() == b.size();
      for (size_t i = 0; all && i < a.size(); ++i) all = a[i].is_same(b[i]);
      return all;
    };
    if (!same(params, participant_->params) || !same(buffers, participant_->buffers))
      recording_->learn(*participant_, std::move(params), std::move(buffers));
  }

  void gradients_are_cleared() {
    if (recording_) recording_->gradients_are_cleared(*participant_);
  }

  RecordedPasses prepare() {
    auto replay = std::make_shared<Replay>(*recording_, *participant_);
    if (verify_ == Verify::Always || (verify_ == Verify::Once && verified_.count(replay->signature()) == 0)) {
      replay->verify();
      if (verified_.size() >= kVerified) verified_.clear();
      verified_.insert(replay->signature());
    }
    return {replay->loss(), [replay](bool draws_again) { return replay->run(draws_again); }};
  }

  at::Tensor loss() const {
    const std::lock_guard<std::mutex> lock(recording_->mutex());
    return Replay::loss_of(*participant_);
  }

  void check_started() const {
    TORCH_CHECK(recording_, "steppe: step() was called without a closure, but the loop is not recorded", stopped_by_,
                "; call replay(true) before the loop, use step(closure), or make pass 2 between ascend() and "
                "descend()");
  }

  void step_done() {
    if (recording_) recording_->step_done(*participant_);
  }

 private:
  void leave() {
    if (recording_) recording_->leave(*participant_);
    recording_.reset();
    participant_.reset();
    verified_.clear();
  }

  /// Programs may take another path in each step; their number is bounded.
  static constexpr size_t kVerified = 4096;

  std::shared_ptr<Recording> recording_;
  std::unique_ptr<Participant> participant_;
  std::unordered_set<uint64_t> verified_;
  Verify verify_ = Verify::Once;
  std::string stopped_by_;
};

STEPPE_INLINE Recorder::Recorder() : part_(std::make_unique<Part>()) {}
STEPPE_INLINE Recorder::~Recorder() = default;
STEPPE_INLINE Recorder::Recorder(Recorder&&) noexcept = default;
STEPPE_INLINE Recorder& Recorder::operator=(Recorder&&) noexcept = default;

// A recorder that was moved from records nothing until it is started.

STEPPE_INLINE void Recorder::verify(Verify when) {
  if (!part_) part_ = std::make_unique<Part>();
  part_->verify(when);
}

STEPPE_INLINE void Recorder::start(std::vector<at::Tensor> params, std::vector<at::Tensor> buffers, bool iterating) {
  if (!part_) part_ = std::make_unique<Part>();
  part_->start(std::move(params), std::move(buffers), iterating);
}

STEPPE_INLINE void Recorder::stop(const char* call) {
  if (part_) part_->stop(call);
}

STEPPE_INLINE void Recorder::learn(std::vector<at::Tensor> params, std::vector<at::Tensor> buffers) {
  if (part_) part_->learn(std::move(params), std::move(buffers));
}

STEPPE_INLINE void Recorder::gradients_are_cleared() {
  if (part_) part_->gradients_are_cleared();
}

STEPPE_INLINE RecordedPasses Recorder::prepare() { return part_->prepare(); }

STEPPE_INLINE at::Tensor Recorder::loss() const { return part_->loss(); }

STEPPE_INLINE void Recorder::check_started() const {
  TORCH_CHECK(part_, "steppe: step() was called on an optimizer that was moved from");
  part_->check_started();
}

STEPPE_INLINE void Recorder::step_done() {
  if (part_) part_->step_done();
}

}  // namespace step
STEPPE_NAMESPACE_END

#pragma pop_macro("Always")
