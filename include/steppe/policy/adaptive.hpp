// Perturbs the steps with a large gradient, as decided after pass 1.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace policy {

/// Perturbs a step if its squared gradient norm s = |g|^2 is large compared with recent ones (AE-SAM, arXiv
/// 2304.14647):
///
///     mu <- d mu + (1 - d) s,  var <- d var + (1 - d) (s - mu)^2  with the new mu;   s >= mu + c sqrt(var)
///
/// c moves linearly from c_first to c_last over `total` steps and stays there: with 1 and -1 few of the first and most
/// of the last steps are perturbed. mu starts at 0, var at e^-10 or at the first s. Cost: 1 + share gradients a step,
/// one read of the gradients, and the wait for their norm. Several processes decide by their mean gradient.
class Adaptive {
 public:
  /// The number of steps of the training.
  TORCH_ARG(int64_t, total) = 0;
  /// d, in [0, 1).
  TORCH_ARG(double, decay) = 0.9;
  /// c at step 0.
  TORCH_ARG(double, c_first) = 1.0;
  /// c from step `total` on.
  TORCH_ARG(double, c_last) = -1.0;
  /// var starts at the first s instead of e^-10.
  TORCH_ARG(bool, start_at_first) = false;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  bool decides(int64_t step, double squared_norm) {
    Seen next = seen_;
    if (!next.any) next.variance = start_at_first_ ? squared_norm : std::exp(-10.0);
    next.any = true;
    next.mean = decay_ * seen_.mean + (1.0 - decay_) * squared_norm;
    next.variance = decay_ * next.variance + (1.0 - decay_) * (squared_norm - next.mean) * (squared_norm - next.mean);
    next_ = next;
    const double c =
        c_first_ + (c_last_ - c_first_) * (std::min)(static_cast<double>(step) / static_cast<double>(total_), 1.0);
    return squared_norm >= next.mean + c * std::sqrt(next.variance);
  }
  /// A step begins: drops what an abandoned step has seen.
  void begin() { next_.reset(); }
  void commit() {
    if (next_) seen_ = *next_;
    next_.reset();
  }

  void validate() const {
    TORCH_CHECK(total_ >= 1,
                "steppe: AE-SAM moves its threshold over the training and needs the number of steps: call "
                "policy().total(steps), got ",
                total_);
    check();
  }
  void forget() { seen_ = Seen(); }

  template <class Fields>
  void fields(Fields& field) {
    field("total", total_);
    field("decay", decay_);
    field("c_first", c_first_);
    field("c_last", c_last_);
    field("start_at_first", start_at_first_);
    field("seen", seen_.any);
    field("mean", seen_.mean);
    field("variance", seen_.variance);
    TORCH_CHECK(total_ >= 0 && std::isfinite(seen_.mean) && std::isfinite(seen_.variance) && seen_.variance >= 0.0,
                "steppe: the checkpoint has a training of ", total_, " steps, the mean ", seen_.mean,
                " and the variance ", seen_.variance, "; it is damaged");
    check();
  }
  ///@}

 private:
  void check() const {
    TORCH_CHECK(decay_ >= 0.0 && decay_ < 1.0, "steppe: Adaptive().decay() must be in [0, 1), got ", decay_);
    TORCH_CHECK(std::isfinite(c_first_) && std::isfinite(c_last_),
                "steppe: Adaptive() needs finite c_first and c_last, got ", c_first_, " and ", c_last_);
  }

  struct Seen {
    bool any = false;
    double mean = 0.0, variance = 0.0;
  };
  Seen seen_;
  std::optional<Seen> next_;
};

}  // namespace policy
STEPPE_NAMESPACE_END
