// Values that change during training, and the steps that are perturbed.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <utility>

#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/ops.hpp>
#include <steppe/no_fast_math.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// Numbers that change during training.
namespace schedule {

/// A number as a function of the step (from 0) and, for one kind, of the learning rate. Made by the functions below.
class Schedule {
 public:
  /// Which function of the step it is.
  enum class Kind : int64_t { Unset, Constant, Linear, Cosine, ProportionalToLr, Custom };

  /// Not set; false in a condition.
  Schedule() = default;
  /// The numbers of a kind, in the order of the arguments of the function below that makes it. Throws c10::Error if one
  /// is not finite, or if the kind does not allow it.
  Schedule(Kind kind, std::array<double, 4> values) : kind_(kind), values_(values) { validate(); }
  /// A function of the program. Throws c10::Error if it is empty.
  explicit Schedule(std::function<double(int64_t)> custom) : kind_(Kind::Custom), custom_(std::move(custom)) {
    TORCH_CHECK(custom_, "steppe: schedule::custom needs a function from the step to the value, got an empty one");
  }

  /// Whether it is set.
  explicit operator bool() const { return kind_ != Kind::Unset; }
  /// Whether its value depends on the learning rate.
  bool needs_lr() const { return kind_ == Kind::ProportionalToLr; }
  /// Whether its value can change from step to step.
  bool varies() const { return kind_ != Kind::Unset && kind_ != Kind::Constant; }

  /// The value at a step (from 0) and a learning rate; 0 if it is not set.
  double operator()(int64_t step, double lr = 0.0) const {
    const auto& [from, to, third, fourth] = values_;
    const double t = third > 0.0 ? (std::min)(static_cast<double>(step) / third, 1.0) : 1.0;
    switch (kind_) {
      case Kind::Linear:
        return from + (to - from) * t;
      case Kind::Cosine:
        return to + (from - to) * (1.0 + std::cos(kPi * t)) / 2.0;
      case Kind::ProportionalToLr:
        return (std::max)(0.0, from + (to - from) * (lr - third) / (fourth - third));
      case Kind::Custom:
        return custom_(step);
      case Kind::Constant:
      case Kind::Unset:
        break;
    }
    return from;
  }

  /// What a checkpoint has of it. A custom function cannot be saved: after load() the program's own stays in place.
  template <class Fields>
  void fields(Fields& field) {
    Kind kind = kind_;
    field("kind", kind);
    field("a", values_[0]);
    field("b", values_[1]);
    field("c", values_[2]);
    field("d", values_[3]);
    TORCH_CHECK(kind >= Kind::Unset && kind <= Kind::Custom, "steppe: there is no kind of schedule with the number ",
                static_cast<int64_t>(kind));
    TORCH_CHECK(kind != Kind::Custom || custom_,
                "steppe: the checkpoint was written with a custom schedule; set one before loading it");
    kind_ = kind;
    validate();
  }

 private:
  static constexpr double kPi = 3.14159265358979323846;

  void validate() const {
    for (const double value : values_)
      TORCH_CHECK(std::isfinite(value), "steppe: a schedule needs finite numbers, got ", value);
    const bool ramps = kind_ == Kind::Linear || kind_ == Kind::Cosine;
    TORCH_CHECK(!ramps || values_[2] > 0.0, "steppe: a schedule must last at least one step, got ", values_[2]);
    TORCH_CHECK(!needs_lr() || !kernels::exact::are_equal(values_[2], values_[3]),
                "steppe: proportional_to_lr needs two different learning rates, got ", values_[2], " twice");
  }

  Kind kind_ = Kind::Unset;
  std::array<double, 4> values_{};
  std::function<double(int64_t)> custom_;
};

/// The same value at every step.
inline Schedule constant(double value) { return {Schedule::Kind::Constant, {value, 0.0, 0.0, 0.0}}; }

/// from + (to - from) t / steps, then constant.
inline Schedule linear(double from, double to, int64_t steps) {
  return {Schedule::Kind::Linear, {from, to, static_cast<double>(steps), 0.0}};
}

/// to + (from - to) (1 + cos(pi t / steps)) / 2, then constant.
inline Schedule cosine(double from, double to, int64_t steps) {
  return {Schedule::Kind::Cosine, {from, to, static_cast<double>(steps), 0.0}};
}

/// low + (high - low) (lr - lr_low) / (lr_high - lr_low), never below 0 (GSAM's rule, arXiv 2203.08065).
///
/// The base optimizer's options must implement get_lr(), as all of LibTorch's do.
inline Schedule proportional_to_lr(double low, double high, double lr_low, double lr_high) {
  return {Schedule::Kind::ProportionalToLr, {low, high, lr_low, lr_high}};
}

/// Any function of the step (from 0). Checkpoints do not contain it: set it before load().
inline Schedule custom(std::function<double(int64_t)> value_at_step) { return Schedule(std::move(value_at_step)); }

/// How a radius depends on the norm of the direction. Made by the functions below.
class Radius {
 public:
  /// The radius does not depend on the norm.
  Radius() = default;
  /// Made by unified() and inverse_norm(). Throws c10::Error if a number is out of its range.
  Radius(RadiusRule rule, double share, Schedule sigma, double delta)
      : rule_(rule), share_(share), sigma_(std::move(sigma)), delta_(delta) {
    validate();
  }

  /// Whether the radius depends on the norm.
  explicit operator bool() const { return rule_ != RadiusRule::Constant; }
  /// Whether the rule can change from step to step.
  bool varies() const { return sigma_.varies(); }

  /// The rule of one step. Throws c10::Error if sigma is negative or not finite at that step.
  Recipe::Radius at(int64_t step) const {
    Recipe::Radius radius;
    radius.rule = rule_;
    radius.share = share_;
    radius.delta = delta_;
    if (sigma_) radius.sigma = sigma_(step);
    TORCH_CHECK(std::isfinite(radius.sigma) && radius.sigma >= 0.0, "steppe: sigma must be finite and at least 0, got ",
                radius.sigma, " at step ", step);
    return radius;
  }

  /// What a checkpoint has of it.
  template <class Fields>
  void fields(Fields& field) {
    field("rule", rule_);
    field("share", share_);
    field("sigma", sigma_);
    field("delta", delta_);
    TORCH_CHECK(rule_ >= RadiusRule::Constant && rule_ <= RadiusRule::Inverse,
                "steppe: there is no rule for a radius with the number ", static_cast<int64_t>(rule_));
    validate();
  }

 private:
  void validate() const {
    TORCH_CHECK(share_ >= 0.0 && share_ <= 1.0, "steppe: unified(share) needs a share in [0, 1], got ", share_);
    TORCH_CHECK(std::isfinite(delta_) && delta_ >= 0.0, "steppe: inverse_norm() needs a delta of at least 0, got ",
                delta_);
    TORCH_CHECK(!sigma_.needs_lr(),
                "steppe: sigma cannot follow the learning rate; use constant, linear, cosine or "
                "custom");
  }

  RadiusRule rule_ = RadiusRule::Constant;
  double share_ = 1.0;
  Schedule sigma_;
  double delta_ = 0.0;
};

/// e = rho (1 - share + share / N(d)) d: SAM at share 1, unnormalized SAM at 0 (Unified SAM, arXiv 2503.02225).
inline Radius unified(double share) { return {RadiusRule::Unified, share, {}, 0.0}; }

/// |e| = min(sigma_t / (N(d) + delta), rho), usually with sigma_t cosine(sigma, 0, steps) (LE-SAM, arXiv 2605.10183).
inline Radius inverse_norm(Schedule sigma, double delta = 1e-12) {
  return {RadiusRule::Inverse, 1.0, std::move(sigma), delta};
}

/// The first of the last `share` of `total` steps: round((1 - share) total).
inline int64_t first_of_tail(double share, int64_t total) {
  return std::llround((1.0 - share) * static_cast<double>(total));
}

/// The steps that are perturbed; the others are plain steps of the base optimizer, with one pass.
class Steps {
 public:
  /// Every k-th step: those with step % k == 0.
  Steps& every(int64_t k) {
    TORCH_CHECK(k >= 1, "steppe: every(k) needs k >= 1, got ", k);
    every_ = k;
    return *this;
  }
  /// Only steps from n (counted from 0) on.
  Steps& from_step(int64_t n) {
    TORCH_CHECK(n >= 0, "steppe: from_step(n) needs n >= 0, got ", n);
    from_ = n;
    return *this;
  }
  /// Only the last `share` of `total` steps, and any after them (late phase, arXiv 2410.10373).
  Steps& last(double share, int64_t total) {
    TORCH_CHECK(share >= 0.0 && share <= 1.0, "steppe: last(share, total) needs a share in [0, 1], got ", share);
    TORCH_CHECK(total >= 1, "steppe: last(share, total) needs the number of steps of the training, got ", total);
    return from_step(first_of_tail(share, total));
  }

  /// Whether a step (from 0) is perturbed.
  bool perturbs(int64_t step) const { return step >= from_ && step % every_ == 0; }
  /// Whether all steps from `step` on are perturbed.
  bool settled(int64_t step) const { return every_ == 1 && step >= from_; }

  /// What a checkpoint has of it.
  template <class Fields>
  void fields(Fields& field) {
    field("every", every_);
    field("from_step", from_);
    every(every_).from_step(from_);
  }

 private:
  int64_t every_ = 1;
  int64_t from_ = 0;
};

}  // namespace schedule
STEPPE_NAMESPACE_END
