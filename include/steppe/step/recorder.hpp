// An optimizer's access to the recording of the thread that trains with it.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

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

/// The passes that led to the gradients of a step.
struct RecordedPasses {
  at::Tensor loss;  ///< of pass 1, if it is known
  /// Makes them again at the current weights, and returns the loss; `draws_again`: with the same random numbers.
  std::function<at::Tensor(bool draws_again)> again;
};

/// Takes part in the recording of a thread while it is started. Movable, as optimizers are.
class Recorder {
 public:
  Recorder();
  ~Recorder();
  Recorder(Recorder&&) noexcept;
  Recorder& operator=(Recorder&&) noexcept;

  void verify(Verify when);
  /// Records on the calling thread from now on; `iterating`: the loop begins here.
  void start(std::vector<at::Tensor> params, std::vector<at::Tensor> buffers, bool iterating);
  /// Stops recording because of a call, which the error of a later step names.
  void stop(const char* call);
  /// Called when the optimizer's tensors may have changed.
  void learn(std::vector<at::Tensor> params, std::vector<at::Tensor> buffers);
  void gradients_are_cleared();
  /// The passes that led to the gradients, verified if that is due. Errors, with nothing changed: see Replay.
  RecordedPasses prepare();
  /// The loss of pass 1, if it is known.
  at::Tensor loss() const;
  void check_started() const;
  void step_done();

 private:
  class Part;
  std::unique_ptr<Part> part_;
};

}  // namespace step
STEPPE_NAMESPACE_END

#pragma pop_macro("Always")

#ifndef STEPPE_COMPILED
#include <steppe/step/recorder.ipp>
#endif
