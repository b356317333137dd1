// Perturbs the late phase of training.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cstdint>

#include <steppe/schedule.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace policy {

/// Plain steps for t < t0 = round((1 - f) T), perturbed ones from t0 on (arXiv 2410.10373): T steps in all, of which
/// the share f is perturbed, at 1 + f gradients a step. With a ramp of R steps the radius is
/// rho * min(1, (t - t0 + 1) / R).
///
///     steppe::Tail<torch::optim::SGD> tail(*model, torch::optim::SGDOptions(0.1));
///     tail.policy().total(steps).share(0.3);
///     steppe::training::LearningRate rate(tail, steppe::training::wsd(tail.policy(), /*warmup=*/100, /*floor=*/0.0));
///
/// The learning rate may share the boundary, as above. An optimizer that goes out of scope before its tail has begun
/// warns of it: T was set too large, or training was stopped early.
class Tail {
 public:
  /// The number of steps of the training.
  TORCH_ARG(int64_t, total) = 0;
  /// The share of them that is perturbed, in [0, 1].
  TORCH_ARG(double, share) = 0.3;
  /// Steps over which the radius grows to rho; 0: no ramp.
  TORCH_ARG(int64_t, ramp) = 0;

 public:
  /// t0, the first step that is perturbed.
  int64_t first_step() const { return schedule::first_of_tail(share_, total_); }

  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  bool perturbs(int64_t step) const { return step >= first_step(); }
  double radius(int64_t step) const {
    if (ramp_ == 0) return 1.0;
    return (std::min)(1.0, static_cast<double>(step - first_step() + 1) / static_cast<double>(ramp_));
  }

  void validate() const {
    TORCH_CHECK(total_ >= 1, "steppe: Tail needs the number of steps of the training: call policy().total(steps), got ",
                total_);
    check();
  }

  template <class Fields>
  void fields(Fields& field) {
    field("total", total_);
    field("share", share_);
    field("ramp", ramp_);
    TORCH_CHECK(total_ >= 0, "steppe: the checkpoint has a training of ", total_, " steps; it is damaged");
    check();
  }
  ///@}

 private:
  void check() const {
    TORCH_CHECK(share_ >= 0.0 && share_ <= 1.0, "steppe: Tail().share() must be in [0, 1], got ", share_);
    TORCH_CHECK(ramp_ >= 0, "steppe: Tail().ramp() must be at least 0, got ", ramp_);
  }
};

}  // namespace policy
STEPPE_NAMESPACE_END
