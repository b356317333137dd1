// From the gradients that backward() leaves to those that a step uses: means over parts and processes, unscaled.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <steppe/sharding.hpp>
#include <steppe/step/gradient_exchange.hpp>
#include <steppe/step/loss_scale.hpp>
#include <steppe/step/step_plan.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

class StepReport;

/// The state of the gradients of this step.
struct Course {
  int64_t parts = 1;      ///< of this process, whose gradients are summed
  bool settled = false;   ///< the gradients in grad() are means over parts and processes
  bool unscaled = false;  ///< they are divided by the loss's factor
  at::Tensor overflow;    ///< a bool: gradients that were unscaled have overflowed
  at::Tensor non_finite;  ///< a bool: a norm was not finite, and no scaler checks for it
};

/// Averages and unscales, where the program has set that; both are linear, so that their order does not matter.
class Reduction {
 public:
  void exchange(std::shared_ptr<GradientExchange> exchange) { exchange_ = std::move(exchange); }
  void perturb(Perturb perturb) { perturb_ = perturb; }
  void scale(std::shared_ptr<LossScale> scale) {
    if (scale != scale_) scale_seen_ = -1;
    scale_ = std::move(scale);
  }

  void shard(std::shared_ptr<const Sharding> sharding) { sharding_ = std::move(sharding); }

  /// Null: the parameters are whole.
  const Sharding* sharding() const { return sharding_.get(); }
  /// Whether several processes make a step, which must not depend on the data of one of them alone.
  bool is_shared() const { return has_exchange() || sharding_; }
  bool has_exchange() const { return exchange_ != nullptr; }
  bool is_scaled() const { return scale_ && scale_->enabled; }
  bool is_each() const { return perturb_ == Perturb::Each; }
  /// Whether every process is perturbed by itself; all make pass 2, also one without a gradient to move along.
  bool joins() const { return has_exchange() && is_each(); }
  /// The factor of the gradients in grad().
  double factor(const Course& course) const { return is_scaled() && !course.unscaled ? scale_->factor() : 1.0; }
  /// The loss that was passed to backward(), without the factor.
  at::Tensor true_loss(const at::Tensor& loss) const { return is_scaled() ? scale_->without(loss) : loss; }

  /// Before a step. Errors: what cannot be done with several parts or processes; update() of a scaler is missing.
  void check(const StepPlan& plan, int64_t parts, bool from_another_batch, double clipping_norm) const;
  /// After pass 1. Errors: the loss was not scaled.
  void check_scaled() const {
    if (is_scaled()) scale_->check_used();
  }

  /// Whether the gradients of pass 1 are settled: it is the only pass, or all are perturbed along their mean.
  bool settles_first(bool perturbs) const { return !(perturbs && joins()); }
  /// Before a pass whose gradients will be settled. Sums of parts are made after the last one.
  void begin_pass(const Course& course) const {
    if (exchange_ && course.parts == 1) exchange_->begin();
  }
  /// After one or several passes: means over parts and processes.
  void settle(const StepPlan& plan, Course& course) const;
  /// Whether that and unscale() change the gradients of pass 1.
  bool changes_first(const StepPlan& plan, bool perturbs, bool has_hook) const {
    return (has_exchange() && settles_first(perturbs)) || unscales_first(plan, has_hook);
  }
  void unscale(const StepPlan& plan, Course& course) const;
  /// Whether the gradients of pass 1 must be unscaled before the ascent.
  bool unscales_first(const StepPlan& plan, bool has_hook) const;

  /// Means of other gradients than those in grad(), by group. Every process calls it.
  std::vector<std::vector<at::Tensor>> means(const StepPlan& plan, int64_t parts,
                                             const std::vector<std::vector<at::Tensor>>& gradients) const;
  /// |g|^2 over all gradients, of the whole parameters; float64, 0-dim.
  at::Tensor squares(const StepPlan& plan) const;
  /// Their p-norm where parameters are sharded, else undefined.
  at::Tensor norm_of_whole(const StepPlan& plan, double p) const;
  /// The mean of a number over the processes.
  double mean(double number, const at::Tensor& like) const;

  /// A flag of one element, true where norms were not finite.
  void note_non_finite(const at::Tensor& flag, Course& course) const;

  /// After the last pass, whose gradients are in grad(): makes them those that the descent receives, and the losses of
  /// the report means over the processes. Throws an Overflow if a scaler detects one, on all processes.
  void conclude(const StepPlan& plan, Course& course, StepReport& report);

  /// Called when an exception leaves the step.
  void abandon(const char* why) const noexcept {
    if (exchange_) exchange_->abandon(why);
  }

 private:
  void agree(const StepPlan& plan, Course& course, StepReport& report) const;

  at::Tensor sum_of_powers(const StepPlan& plan, double p) const;

  std::shared_ptr<GradientExchange> exchange_;
  std::shared_ptr<const Sharding> sharding_;
  Perturb perturb_ = Perturb::Each;
  std::shared_ptr<LossScale> scale_;
  int64_t scale_seen_ = -1;
};

}  // namespace step
STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/step/reduction.ipp>
#endif
