// Factors of a learning rate over training: functions that share the boundary of the tail.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/no_fast_math.hpp>
#include <steppe/schedule.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace training {

/// Where the tail of a training begins: at step t0 of T, counted from 0. The functions below also take any type with
/// total() and first_step(), such as the tail of the optimizer itself: then both have one boundary.
class TailBoundary {
 public:
  /// Throws c10::Error if total is below 1, or first_step outside [0, total].
  TailBoundary(int64_t total, int64_t first_step) : total_(total), first_step_(first_step) { validate(); }

  /// t0 = round((1 - share) T), with halves rounded up. Errors: total < 1, a share outside [0, 1].
  static TailBoundary of_share(int64_t total, double share) {
    TORCH_CHECK(share >= 0.0 && share <= 1.0, "steppe: the share of the tail must be in [0, 1], got ", share,
                "; for a tail given by its first step, use TailBoundary(total, first_step)");
    TailBoundary tail(total, 0);
    tail.first_step_ = schedule::first_of_tail(share, total);
    return tail;
  }

  /// T, the number of the optimizer's steps in the training.
  int64_t total() const { return total_; }
  /// t0, the first step of the tail; T: no tail.
  int64_t first_step() const { return first_step_; }

  /// What a checkpoint has of it.
  template <class Fields>
  void fields(Fields& field) {
    field("total", total_);
    field("first_step", first_step_);
    validate();
  }

 private:
  /// LibTorch's schedulers count steps in 32 bits.
  static constexpr int64_t kMostSteps = (std::numeric_limits<int32_t>::max)();

  void validate() const {
    TORCH_CHECK(total_ >= 1 && total_ <= kMostSteps, "steppe: a learning-rate schedule needs the number of optimizer ",
                "steps of the training, 1 to ", kMostSteps, ", got ", total_);
    TORCH_CHECK(first_step_ >= 0 && first_step_ <= total_, "steppe: the tail must begin within the training of ",
                total_, " steps, got step ", first_step_);
  }

  int64_t total_;
  int64_t first_step_;
};

/// The factor of a learning rate as a function of the step (from 0). Made by the functions below.
class LearningRateFactor {
 public:
  /// The shape of the function.
  enum class Kind : int64_t {
    LinearTail,  ///< wsd()
    CosineTail,  ///< cosine_tail(), warmup_cosine()
    Milestones   ///< multistep()
  };

  /// 1 from the end of the warm-up until the tail begins, then down to the floor at the end of the training.
  LearningRateFactor(Kind kind, const TailBoundary& tail, int64_t warmup, double floor)
      : kind_(kind), tail_(tail), warmup_(warmup), floor_(floor) {
    validate();
  }
  /// gamma^(number of milestones that are <= t).
  LearningRateFactor(std::vector<int64_t> milestones, double gamma)
      : kind_(Kind::Milestones), milestones_(std::move(milestones)), gamma_(gamma) {
    validate();
  }

  /// The factor at a step.
  double operator()(int64_t step) const {
    if (kind_ == Kind::Milestones) return at_milestones(step);
    const int64_t total = tail_.total(), first = tail_.first_step(), t = (std::min)(step, total);
    if (t < warmup_) return static_cast<double>(t + 1) / static_cast<double>(warmup_);
    if (t <= first) return 1.0;
    if (t == total) return floor_;
    const double gone = static_cast<double>(t - first) / static_cast<double>(total - first);
    return kind_ == Kind::LinearTail ? 1.0 - (1.0 - floor_) * gone
                                     : floor_ + (1.0 - floor_) * (1.0 + std::cos(kPi * gone)) / 2.0;
  }

  /// What a checkpoint has of it.
  template <class Fields>
  void fields(Fields& field) {
    field("kind", kind_);
    field("tail", tail_);
    field("warmup", warmup_);
    field("floor", floor_);
    auto count = static_cast<int64_t>(milestones_.size());
    field("milestones", count);
    TORCH_CHECK(count >= 0 && count <= kMostMilestones, "steppe: the checkpoint of a learning-rate schedule has ",
                count, " milestones; it is damaged");
    milestones_.resize(static_cast<size_t>(count));
    for (size_t i = 0; i < milestones_.size(); ++i) field("milestone/" + std::to_string(i), milestones_[i]);
    field("gamma", gamma_);
    validate();
  }

 private:
  static constexpr double kPi = 3.14159265358979323846;
  static constexpr int64_t kMostMilestones = 1 << 20;

  /// Multiplied in sequence: a power would differ between math libraries.
  double at_milestones(int64_t step) const {
    double factor = 1.0;
    for (size_t i = 0; i < milestones_.size() && milestones_[i] <= step; ++i) factor *= gamma_;
    return factor;
  }

  void validate() const {
    TORCH_CHECK(kind_ >= Kind::LinearTail && kind_ <= Kind::Milestones,
                "steppe: there is no kind of learning-rate schedule with the number ", static_cast<int64_t>(kind_));
    TORCH_CHECK(warmup_ >= 0 && warmup_ <= tail_.first_step(),
                "steppe: the warm-up must be over when the learning rate begins to fall, at step ", tail_.first_step(),
                ", got ", warmup_, " steps: shorten it, or begin later");
    TORCH_CHECK(floor_ >= 0.0 && floor_ <= 1.0,
                "steppe: the floor is the share of the learning rate that is left at the end, in [0, 1], got ", floor_);
    TORCH_CHECK(milestones_.empty() || milestones_.front() >= 0, "steppe: milestones are steps, counted from 0, got ",
                milestones_.front());
    for (size_t i = 1; i < milestones_.size(); ++i)
      TORCH_CHECK(milestones_[i - 1] < milestones_[i], "steppe: milestones must increase, got ", milestones_[i],
                  " behind ", milestones_[i - 1], ": sort them, each once");
    TORCH_CHECK(gamma_ > 0.0 && std::isfinite(gamma_),
                "steppe: gamma multiplies the learning rate at each milestone and must be over 0, got ", gamma_);
  }

  Kind kind_;
  TailBoundary tail_{1, 0};
  int64_t warmup_ = 0;
  double floor_ = 1.0;
  std::vector<int64_t> milestones_;
  double gamma_ = 1.0;
};

namespace detail {

template <class T, class = void>
struct IsTail : std::false_type {};
template <class T>
struct IsTail<T, std::void_t<decltype(std::declval<const T&>().total(), std::declval<const T&>().first_step())>>
    : std::true_type {};

template <class Tail>
using OnlyTails = std::enable_if_t<IsTail<Tail>::value>;

template <class Tail>
TailBoundary boundary_of(const Tail& tail) {
  return {static_cast<int64_t>(tail.total()), static_cast<int64_t>(tail.first_step())};
}

}  // namespace detail

/// Warmup-stable-decay: a straight line down over the tail, t0 to T (arXiv 2404.06395 has the three phases; the tail
/// that contains the whole decay is of arXiv 2410.10373).
///
///     (t+1)/warmup in the warm-up,  1 until t0,  1 - (1-floor) (t-t0)/(T-t0) in the tail,  floor from T on
///
/// `tail` is a TailBoundary or the optimizer's own. Errors: total < 1, t0 outside [0, T], a warm-up that is longer than
/// t0, a floor outside [0, 1].
template <class Tail, class = detail::OnlyTails<Tail>>
LearningRateFactor wsd(const Tail& tail, int64_t warmup, double floor) {
  return {LearningRateFactor::Kind::LinearTail, detail::boundary_of(tail), warmup, floor};
}

/// The same; the tail is a share of the training, see TailBoundary::of_share.
inline LearningRateFactor wsd(int64_t total, double tail_share, int64_t warmup, double floor) {
  return wsd(TailBoundary::of_share(total, tail_share), warmup, floor);
}

/// Half a cosine down over the tail, t0 to T (the tail: arXiv 2410.10373).
///
///     (t+1)/warmup in the warm-up,  1 until t0,  floor + (1-floor) (1 + cos(pi (t-t0)/(T-t0)))/2 in the tail,
///     floor from T on
///
/// Arguments and errors as for wsd(); the warm-up is at the beginning of the training and may be 0.
template <class Tail, class = detail::OnlyTails<Tail>>
LearningRateFactor cosine_tail(const Tail& tail, int64_t warmup, double floor) {
  return {LearningRateFactor::Kind::CosineTail, detail::boundary_of(tail), warmup, floor};
}

/// The same; the tail is a share of the training, see TailBoundary::of_share.
inline LearningRateFactor cosine_tail(int64_t total, double tail_share, int64_t warmup, double floor) {
  return cosine_tail(TailBoundary::of_share(total, tail_share), warmup, floor);
}

/// Half a cosine down as soon as the warm-up is over.
///
///     (t+1)/warmup in the warm-up,  floor + (1-floor) (1 + cos(pi (t-warmup)/(T-warmup)))/2 after it,
///     floor from T on
///
/// Errors: total < 1, a warm-up outside [0, T], a floor outside [0, 1].
inline LearningRateFactor warmup_cosine(int64_t total, int64_t warmup, double floor) {
  // A warm-up that is too long, or negative, is left to the check whose message is about warm-ups.
  const int64_t first = (std::max)(int64_t{0}, (std::min)(warmup, total));
  return cosine_tail(TailBoundary(total, first), warmup, floor);
}

/// The same; only T is taken from the tail, whose beginning has no effect here.
template <class Tail, class = detail::OnlyTails<Tail>>
LearningRateFactor warmup_cosine(const Tail& tail, int64_t warmup, double floor) {
  return warmup_cosine(static_cast<int64_t>(tail.total()), warmup, floor);
}

/// gamma^(number of milestones that are <= t). For a drop where the tail begins, include its first_step().
///
/// Errors: milestones that are negative or not increasing, gamma <= 0.
inline LearningRateFactor multistep(std::vector<int64_t> milestones, double gamma) {
  return {std::move(milestones), gamma};
}

}  // namespace training
STEPPE_NAMESPACE_END
