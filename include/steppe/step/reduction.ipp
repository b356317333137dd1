// How gradients of parts and processes become those of a step.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/kernels/reference.hpp>
#include <steppe/step/programs_gradients.hpp>
#include <steppe/step/reduction.hpp>
#include <steppe/step/step_plan.hpp>
#include <steppe/step/step_report.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

STEPPE_INLINE void Reduction::check(const StepPlan& plan, int64_t parts, bool from_another_batch,
                                    double clipping_norm) const {
  if (is_scaled()) scale_->check_updated(scale_seen_);
  if (sharding_) {
    TORCH_CHECK(!exchange_,
                "steppe: sharded() and exchange() were both called; use sharded gradients that are means already, as a "
                "reduce-scatter makes them, and exchange(nullptr)");
    plan.for_each_param([&](const at::Tensor& param) {
      TORCH_CHECK(!sharding_->lists_any() || sharding_->find(param) != nullptr, "steppe: a parameter of shape ",
                  param.sizes(),
                  " has no Shard, but others have; list all of them, with "
                  "Shard::whole(param) for what every process holds");
    });
    for (const GroupPlan& group : plan.groups)
      TORCH_CHECK(group.direction.links.empty() && !group.direction.source,
                  "steppe: sharded() supports SAM, ASAM, ZSharp, GCSAM and compositions of them; custom links, and "
                  "directions made of earlier gradients, would see only a part of each parameter");
    TORCH_CHECK(!plan.descent_mixes,
                "steppe: sharded() is for methods that descend along g+ itself; this method's descent takes sums over "
                "the gradient, of which it would see only a part");
    TORCH_CHECK(
        parts == 1 || !is_each(),
        "steppe: sharded gradients are means of all processes already, so that parts cannot be perturbed each by "
        "themselves; use steppe::Perturb::Together");
    TORCH_CHECK(!std::isinf(clipping_norm),
                "steppe: clip_grad_norm() of sharded gradients sums over the processes, which gives no maximum; use "
                "a finite norm_type");
  }
  const bool many = parts > 1 || has_exchange();
  if (!many || !is_each() || plan.is_ahead()) return;
  const char* const cure = "; use steppe::Perturb::Together, with which all are perturbed along the mean gradient";
  TORCH_CHECK(!plan.ascent_keeps_state,
              "steppe: this method's direction is also made of earlier gradients, of which parts or processes that are "
              "perturbed each by themselves would have different ones",
              cure);
  TORCH_CHECK(parts == 1 || !plan.decides,
              "steppe: this method decides by the gradient of the whole step whether it is perturbed, but parts that "
              "are perturbed each by themselves are processed in sequence",
              cure);
  TORCH_CHECK(parts == 1 || !from_another_batch,
              "steppe: ascend_on() gives one batch for the perturbation, but each part is perturbed by itself", cure);
}

STEPPE_INLINE void Reduction::settle(const StepPlan& plan, Course& course) const {
  if (course.settled) return;
  // Of this process alone: the mean would not show whose it was.
  if (exchange_ && !is_scaled() && plan.any_gradient()) {
    const at::Tensor flag = kernels::squares(plan.existing_gradients()).isfinite().logical_not();
    course.non_finite =
        course.non_finite.defined() ? course.non_finite.logical_or(flag.to(course.non_finite.device())) : flag;
  }
  if (exchange_) exchange_->finish(plan.params());
  course.settled = true;
  if (course.parts == 1) return;
  const c10::NoGradGuard no_grad;
  for (at::Tensor& gradient : plan.existing_gradients()) gradient.mul_(1.0 / static_cast<double>(course.parts));
}

STEPPE_INLINE void Reduction::unscale(const StepPlan& plan, Course& course) const {
  if (!is_scaled() || course.unscaled) return;
  const at::Tensor found = scale_->unscale(plan.existing_gradients());
  if (found.defined())
    course.overflow =
        course.overflow.defined() ? course.overflow.logical_or(found.to(course.overflow.device())) : found;
  course.unscaled = true;
}

STEPPE_INLINE bool Reduction::unscales_first(const StepPlan& plan, bool has_hook) const {
  if (!is_scaled()) return false;
  bool looked_at = has_hook || plan.uses_first();
  // The kernels' directions do not depend on the gradient's length, but some radii do.
  for (const GroupPlan& group : plan.groups)
    looked_at =
        looked_at || !group.direction.links.empty() || group.direction.recipe.radius.rule != RadiusRule::Constant;
  return looked_at;
}

STEPPE_INLINE std::vector<std::vector<at::Tensor>> Reduction::means(
    const StepPlan& plan, int64_t parts, const std::vector<std::vector<at::Tensor>>& gradients) const {
  const GradientsAside in_grad(plan.params());
  for (size_t k = 0; k < plan.groups.size(); ++k)
    for (size_t i = 0; i < plan.groups[k].params.size(); ++i) plan.groups[k].params[i].mutable_grad() = gradients[k][i];
  Course course;
  course.parts = parts;
  settle(plan, course);
  std::vector<std::vector<at::Tensor>> found;
  for (const GroupPlan& group : plan.groups) {
    std::vector<at::Tensor>& of_group = found.emplace_back();
    for (const at::Tensor& param : group.params) of_group.push_back(param.grad());
  }
  return found;
}

STEPPE_INLINE at::Tensor Reduction::squares(const StepPlan& plan) const {
  return sharding_ ? sum_of_powers(plan, 2.0) : kernels::squares(plan.existing_gradients());
}

STEPPE_INLINE at::Tensor Reduction::norm_of_whole(const StepPlan& plan, double p) const {
  if (!sharding_ || !(p > 0.0)) return at::Tensor();
  return sum_of_powers(plan, p).pow(1.0 / p);
}

STEPPE_INLINE at::Tensor Reduction::sum_of_powers(const StepPlan& plan, double p) const {
  const c10::NoGradGuard no_grad;
  at::Tensor sum = at::zeros({1}, plan.params().front().options().dtype(at::kDouble).requires_grad(false));
  plan.for_each_param([&](const at::Tensor& param) {
    if (!param.grad().defined()) return;
    const at::Tensor values = param.grad().is_sparse() ? param.grad().to_dense() : param.grad();
    const at::Tensor power = reference::vector_norm(values, p).pow(p).to(sum.device());
    sum += sharding_->is_replicated(param) ? power / sharding_->processes() : power;
  });
  sharding_->sum(sum);
  return sum[0];
}

STEPPE_INLINE double Reduction::mean(double number, const at::Tensor& like) const {
  if (!exchange_) return number;
  const c10::NoGradGuard no_grad;
  at::Tensor sum = at::zeros({1}, at::TensorOptions().dtype(at::kDouble)).add_(number).to(like.device());
  exchange_->sum(sum);
  return sum.item<double>() / static_cast<double>(exchange_->processes());
}

STEPPE_INLINE void Reduction::note_non_finite(const at::Tensor& flag, Course& course) const {
  if (!flag.defined() || (exchange_ && !is_each() && !is_scaled())) return;  // of a mean: settle() knows whose it was
  at::Tensor& noted = is_scaled() ? course.overflow : course.non_finite;
  noted = noted.defined() ? noted.logical_or(flag.to(noted.device())) : flag;
}

STEPPE_INLINE void Reduction::conclude(const StepPlan& plan, Course& course, StepReport& report) {
  settle(plan, course);
  unscale(plan, course);
  if (exchange_) agree(plan, course, report);
  if (!is_scaled()) {
    if (course.non_finite.defined()) report.non_finite_steps().add(course.non_finite);
    return;
  }
  if (sharding_) {
    at::Tensor overflows = at::zeros({1}, plan.params().front().options().dtype(at::kDouble).requires_grad(false));
    if (course.overflow.defined()) overflows += course.overflow.to(overflows.device(), at::kDouble);
    sharding_->sum(overflows);
    course.overflow = (overflows > 0)[0];
  }
  const bool overflowed = course.overflow.defined() && course.overflow.item<bool>();
  scale_seen_ = scale_->note(overflowed);
  if (overflowed) throw Overflow{report.seen().loss.defined() ? report.seen().loss : report.seen().perturbed_loss};
}

STEPPE_INLINE void Reduction::agree(const StepPlan& plan, Course& course, StepReport& report) const {
  const c10::NoGradGuard no_grad;
  const int64_t processes = exchange_->processes();
  const at::Tensor losses[2] = {report.seen().loss, report.seen().perturbed_loss};
  // Sums and counts of two losses, a count of overflows, and which processes have values that are not finite.
  at::Tensor told = at::zeros({5 + processes}, at::TensorOptions().dtype(at::kDouble));
  double* const number = told.data_ptr<double>();
  for (int k = 0; k < 2; ++k)
    if (losses[k].defined()) {
      number[2 * k] = losses[k].item<double>();
      number[2 * k + 1] = 1.0;
    }
  const bool is_not_finite = !std::isfinite(number[0]) || !std::isfinite(number[2]);
  number[4] = course.overflow.defined() && course.overflow.item<bool>() ? 1.0 : 0.0;
  number[5 + exchange_->process()] =
      is_not_finite || (course.non_finite.defined() && course.non_finite.item<bool>()) ? 1.0 : 0.0;

  at::Tensor sent = told.to(plan.params().front().device());
  exchange_->sum(sent);
  told = sent.cpu();
  const double* const sum = told.data_ptr<double>();
  if (!is_scaled()) {
    std::string who;
    for (int64_t r = 0; r < processes; ++r)
      if (sum[5 + r] > 0.0) who += (who.empty() ? "" : ", ") + std::to_string(r);
    TORCH_CHECK(who.empty(), "steppe: the loss or the gradient of process ", who, " of ", processes,
                " is not finite; no process has changed a weight. Look at its batch, lower the learning rate, or train "
                "float16 with a GradScaler, which skips such steps");
  }
  at::Tensor means[2];
  for (int k = 0; k < 2; ++k)
    if (sum[2 * k + 1] > 0.0) {
      const at::TensorOptions like = losses[k].defined() ? losses[k].options() : sent.options();
      means[k] = at::zeros({}, like.requires_grad(false)).add_(sum[2 * k] / sum[2 * k + 1]);
    }
  report.losses(means[0], means[1]);
  if (sum[4] > 0.0) course.overflow = at::zeros({}, at::TensorOptions().dtype(at::kBool)).logical_not();
}

}  // namespace step
STEPPE_NAMESPACE_END
