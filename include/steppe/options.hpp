// The hyper-parameters that every method shares, one set per parameter group.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <cmath>
#include <optional>

#include <steppe/kernels/exact.hpp>
#include <steppe/no_fast_math.hpp>
#include <steppe/placement.hpp>
#include <steppe/schedule.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// Hyper-parameters of one parameter group, kept beside LibTorch's own options for the group.
///
///     steppe::SAM<torch::optim::SGD> sam(*model, torch::optim::SGDOptions(0.1), steppe::Options().rho(0.1));
///     sam.options(1).rho(0.0);  // group 1 is not perturbed
class Options {
 public:
  /// The radius: |e|_p = rho over all groups together if they share it. Left unset, it is the method's own default
  /// (SAM, ZSharp and GCSAM 0.05, ASAM 0.5 or 2).
  ///@{
  Options& rho(double value) {
    rho_ = value;
    return *this;
  }
  double rho() const { return rho_.value_or(0.05); }
  ///@}
  /// Whether a radius is set. Optimizers set theirs where the program has not.
  bool has_rho() const { return rho_.has_value(); }

  /// rho as a function of the step; replaces `rho` when set, except that a group with rho 0 keeps 0.
  TORCH_ARG(schedule::Schedule, rho_schedule);
  /// The radius as a function of the norm of the direction: schedule::unified or schedule::inverse_norm.
  TORCH_ARG(schedule::Radius, radius);
  /// The order of the ball |e|_p <= rho, over 1; infinity gives e = rho * sign(g).
  TORCH_ARG(double, p) = 2.0;
  /// With rho 0: whether the group's gradients still count in the global norm.
  TORCH_ARG(bool, in_norm) = true;
  /// false: the ascent is computed by its definition in ATen operations instead of the fused kernels; slower, the same
  /// up to rounding. Not part of a checkpoint, like `placement`.
  TORCH_ARG(bool, fused) = true;
  /// Where the perturbed weights are stored; a tensor for which that is not safe takes the next safe place.
  TORCH_ARG(Placement, placement) = Placement::Auto;

 public:
  /// The radius at a step (from 0) with a learning rate.
  double rho_at(int64_t step, double lr) const {
    if (!rho_schedule_ || kernels::exact::is_zero(rho())) return rho();
    const double value = rho_schedule_(step, lr);
    TORCH_CHECK(std::isfinite(value) && value >= 0.0, "steppe: the rho schedule gave ", value, " at step ", step,
                "; rho must be finite and at least 0");
    return value;
  }

  /// Throws c10::Error if a value is out of its range, or if `radius` is set and p is not 2.
  void validate() const {
    TORCH_CHECK(std::isfinite(rho()) && rho() >= 0.0, "steppe: rho must be finite and at least 0, got ", rho());
    TORCH_CHECK(!radius_ || kernels::exact::are_equal(p_, 2.0),
                "steppe: a radius that depends on the norm needs p = 2, got p = ", p_);
    TORCH_CHECK(p_ > 1.0, "steppe: the norm order p must be over 1 (infinity is fine), got ", p_);
  }

  /// What a checkpoint has of it.
  template <class Fields>
  void fields(Fields& field) {
    double value = rho();
    field("rho", value);
    rho_ = value;
    field("rho_schedule", rho_schedule_);
    field("radius", radius_);
    field("p", p_);
    field("in_norm", in_norm_);
  }

 private:
  std::optional<double> rho_;
};

STEPPE_NAMESPACE_END
