// An optimizer's access to the recording of the thread that trains with it.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/step/recording.hpp>
#include <steppe/step/replay.hpp>
#include <steppe/version.hpp>

#pragma push_macro("Always")
#undef Always  // of X11

STEPPE_NAMESPACE_BEGIN

/// When a loop without a closure is checked: pass 1 is made again at the same weights and must give the same gradients.
enum class Verify {
  Once,    ///< before a sequence of operators is used for the first time: a third pass in that step
  Always,  ///< a third pass in every step
  Never,
};

namespace step {

/// Takes part in the recording of a thread while it is started. Movable, as optimizers are.
class Recorder {
 public:
  Recorder() = default;
  Recorder(Recorder&&) = default;
  Recorder& operator=(Recorder&& other) noexcept {
    leave();
    recording_ = std::move(other.recording_);
    participant_ = std::move(other.participant_);
    verified_ = std::move(other.verified_);
    verify_ = other.verify_;
    stopped_by_ = std::move(other.stopped_by_);
    return *this;
  }
  ~Recorder() { leave(); }

  void verify(Verify when) { verify_ = when; }

  /// Records on the calling thread from now on; `iterating`: the loop begins here.
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

  /// Records no more, because of a call that the error of a later step names.
  void stop(const char* call) {
    leave();
    stopped_by_ = std::string(", since ") + call + " was called";
  }

  /// The optimizer's tensors may have changed.
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

  /// The passes that led to the gradients, verified if that is due. Errors, with nothing changed: see Replay.
  Replay prepare() {
    Replay replay(*recording_, *participant_);
    if (verify_ == Verify::Always || (verify_ == Verify::Once && verified_.count(replay.signature()) == 0)) {
      replay.verify();
      if (verified_.size() >= kVerified) verified_.clear();
      verified_.insert(replay.signature());
    }
    return replay;
  }

  /// The loss of pass 1, if it is known.
  at::Tensor loss() const {
    const std::lock_guard<std::mutex> lock(recording_->mutex());
    return Replay::loss_of(*participant_);
  }

  void check_started() const {
    TORCH_CHECK(recording_, "steppe: step() was called without a closure, but the loop is not recorded", stopped_by_,
                "; call replay(true) before the loop, or hand the pass over as step(closure), or make it between "
                "ascend() and descend()");
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

}  // namespace step
STEPPE_NAMESPACE_END

#pragma pop_macro("Always")
