// The passes of a step and what lies between them.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <steppe/descent/step_gradients.hpp>
#include <steppe/kernels/dispatch.hpp>
#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/perturbation.hpp>
#include <steppe/step/attached.hpp>
#include <steppe/step/buffers_guard.hpp>
#include <steppe/step/participant.hpp>
#include <steppe/step/random_numbers.hpp>
#include <steppe/step/step_plan.hpp>
#include <steppe/step/two_pass.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// Perturbations that each start where the one before has ended; they are undone from the last to the first, also when
/// an exception ends the step.
class TwoPass::Ascents {
 public:
  Ascents() = default;
  Ascents(const Ascents&) = delete;
  Ascents& operator=(const Ascents&) = delete;
  ~Ascents() {
    while (!all_.empty()) all_.pop_back();
  }
  const AscentResult& add(const std::vector<AscentGroup>& groups, std::shared_ptr<PerturbationMemory> memory,
                          const Sharding* sharding) {
    all_.push_back(std::make_unique<Perturbation>(groups, std::move(memory), sharding));
    return all_.back()->result();
  }
  void restore() {
    for (; !all_.empty(); all_.pop_back()) all_.back()->restore();
  }

 private:
  std::vector<std::unique_ptr<Perturbation>> all_;
};

/// A two-phase step between ascend() and descend(). Members are destroyed last to first.
struct TwoPass::Pending {
  StepPlan plan;
  step::Course course;
  bool ahead = false;  ///< the pass that is to come is the only one
  First first;
  std::vector<std::vector<at::Tensor>> gradients;
  std::vector<std::vector<at::Tensor>> own;  ///< as pass 1 left them, where they have been changed since
  std::vector<step::GradientNote> cleared;
  std::unique_ptr<step::OthersGradients> others;
  std::unique_ptr<step::BuffersGuard> after_pass_one;
  std::optional<step::Attached::OthersStatistics> statistics;
  std::unique_ptr<step::RandomNumbers> numbers;
  std::unique_ptr<Perturbation> perturbation;
};

/// Marks the time in which a closure or a hook runs.
class TwoPass::Evaluating {
 public:
  explicit Evaluating(bool& flag) : flag_(flag) { flag_ = true; }
  ~Evaluating() { flag_ = false; }
  Evaluating(const Evaluating&) = delete;
  Evaluating& operator=(const Evaluating&) = delete;

 private:
  bool& flag_;
};

STEPPE_INLINE TwoPass::TwoPass() : memory_(std::make_shared<PerturbationMemory>()) {}
STEPPE_INLINE TwoPass::TwoPass(TwoPass&&) noexcept = default;
STEPPE_INLINE TwoPass& TwoPass::operator=(TwoPass&&) noexcept = default;
STEPPE_INLINE TwoPass::~TwoPass() = default;

STEPPE_INLINE void TwoPass::attach(const torch::nn::Module& model) {
  attached_.add(model);
  kept_buffers_.release();
}

STEPPE_INLINE void TwoPass::attach(const std::vector<at::Tensor>& buffers) {
  attached_.add(buffers);
  kept_buffers_.release();
}

STEPPE_INLINE void TwoPass::after_pass_one(GradientHook hook) { after_pass_one_ = std::move(hook); }

STEPPE_INLINE void TwoPass::before_descent(GradientHook hook) { before_descent_ = std::move(hook); }

STEPPE_INLINE void TwoPass::note_gradients(const std::vector<at::Tensor>& params) { programs_.note(params); }

STEPPE_INLINE StepPlan* TwoPass::pending_plan() { return pending_ ? &pending_->plan : nullptr; }

STEPPE_INLINE step::KeptBuffers* TwoPass::kept_by(const StepPlan& plan) {
  return is_captured(plan) ? nullptr : &kept_buffers_;
}

STEPPE_INLINE at::Tensor TwoPass::evaluate(const Closure& closure, const StepPlan& plan) {
  return evaluate(Passes{closure, {}, {}, 1, {}}, plan);
}

STEPPE_INLINE void TwoPass::replay_rng(bool on) {
  replay_rng_ = on;
  draws_.reset();
}

STEPPE_INLINE int64_t TwoPass::memory_bytes() const {
  int64_t sum = memory_->bytes() + kept_buffers_.bytes();
  for (const auto& memory : more_memory_) sum += memory->bytes();
  return sum;
}

STEPPE_INLINE void TwoPass::release_memory() {
  check_between_steps("release_memory()");
  memory_->release();
  for (const auto& memory : more_memory_) memory->release();
  kept_buffers_.release();
}

STEPPE_INLINE void TwoPass::check_between_steps(const char* call) const {
  TORCH_CHECK(!evaluating_, "steppe: ", call,
              " was called inside the closure or a hook of step(); call it after the step");
  TORCH_CHECK(!ascended(), "steppe: ", call,
              " was called between ascend() and descend(), where the weights are "
              "perturbed; call descend() or cancel() first");
}

STEPPE_INLINE bool TwoPass::is_captured(const StepPlan& plan) {
  c10::Device last(c10::DeviceType::CPU);
  bool captured = false;
  plan.for_each_param([&](const at::Tensor& param) {
    if (captured || param.device() == last) return;
    last = param.device();
    captured = kernels::is_capturing(last);
  });
  return captured;
}

STEPPE_INLINE at::Tensor TwoPass::evaluate(const Passes& passes, const StepPlan& plan) {
  check_between_steps("step()");
  check_capture(plan);
  reduction_.check(plan, passes.parts, passes.ascent != nullptr, clipping_.takes_norm());
  const Closure closure = passes.parts > 1 ? together(passes, plan) : passes.closure;
  if (plan.is_ahead()) return evaluate_ahead(closure, plan, passes.parts);
  if (passes.parts > 1 && reduction_.is_each() && perturbs(plan)) return evaluate_each(passes, plan);
  step::Course course;
  const bool from_another_batch = passes.ascent && perturbs(plan);
  course.parts = from_another_batch ? 1 : passes.parts;
  const Evaluating here(evaluating_);
  step::BuffersGuard roll_back(buffers(), kept_by(plan));
  std::optional<step::RandomNumbers> numbers;
  if (perturbs(plan) && replay_rng_ && !passes.ascent) numbers.emplace(plan.devices(), draws_.value_or(true));

  programs_.begin(plan.params());
  programs_.find(plan.params());
  plan.clear_gradients(programs_);
  if (reduction_.settles_first(perturbs(plan))) reduction_.begin_pass(course);
  if (numbers) numbers->begin_first();
  const at::Tensor loss = with_grad(from_another_batch ? passes.ascent : closure);
  if (numbers) numbers->end_first();
  reduction_.check_scaled();
  if (!reduction_.is_shared() && !plan.any_gradient()) {
    TORCH_WARN_ONCE("steppe: no parameter has a gradient after the closure; does it call backward()?");
  }
  // A closure may return the same tensor from both passes.
  const at::Tensor clean = loss.defined() ? loss.detach().clone() : at::Tensor();
  bool overwritten = false;
  const auto again = [&](const Closure& pass) {
    if (numbers) numbers->begin_second();
    const at::Tensor second = with_grad(pass);
    if (numbers) numbers->end_second();
    overwritten = overwritten || (loss.defined() && second.defined() && second.is_alias_of(loss));
    return second;
  };
  Closure own_pass;  // if the other batch gives no perturbation, the step is a plain one over its own
  if (from_another_batch)
    own_pass = [&] {
      course.parts = passes.parts;
      return with_grad(closure);
    };
  const auto loss_again = [&] {
    if (!passes.loss) return again(closure);
    const c10::NoGradGuard no_grad;
    return again([&] {
      const c10::AutoGradMode disabled(false);
      return passes.loss();
    });
  };
  const auto second_pass = [&] {
    course.parts = passes.parts;
    return again(closure);
  };
  finish_step(plan, course, clean, own_pass, second_pass, std::cref(loss_again));
  if (numbers) draws_ = draws_.value_or(false) || numbers->drew();
  roll_back.dismiss();
  if (reduction_.has_exchange()) return report_.seen().loss;
  return overwritten ? clean : loss;
}

STEPPE_INLINE TwoPass::Closure TwoPass::together(const Passes& passes, const StepPlan& plan) {
  return [this, &passes, &plan] {
    std::vector<at::Tensor> losses;
    std::vector<std::vector<at::Tensor>> sums;  // aside: a part may clear the gradients that it finds
    for (int64_t i = 0; i < passes.parts; ++i) {
      plan.clear_gradients(programs_);
      const at::Tensor loss = passes.part(i);
      losses.push_back(loss.defined() ? loss.detach().clone() : loss);
      plan.add_gradients(sums, programs_);
    }
    plan.put_back(sums, programs_);
    return mean_of(losses);
  };
}

STEPPE_INLINE at::Tensor TwoPass::mean_of(const std::vector<at::Tensor>& losses) {
  const c10::NoGradGuard no_grad;
  at::Tensor sum;
  for (const at::Tensor& loss : losses) {
    if (!loss.defined() || loss.numel() != 1) return at::Tensor();
    sum = sum.defined() ? sum + loss : loss;
  }
  return sum / static_cast<double>(losses.size());
}

STEPPE_INLINE at::Tensor TwoPass::evaluate_each(const Passes& passes, const StepPlan& plan) {
  const Evaluating here(evaluating_);
  step::BuffersGuard roll_back(buffers(), kept_by(plan));
  programs_.begin(plan.params());
  programs_.find(plan.params());
  report_.begin();
  step::Course course;
  std::vector<at::Tensor> losses, perturbed_losses;
  std::vector<std::vector<at::Tensor>> firsts, seconds;  // sums
  std::vector<std::unique_ptr<step::RandomNumbers>> numbers;
  const auto part_again = [&](int64_t i) {
    step::RandomNumbers* const drawn = numbers[static_cast<size_t>(i)].get();
    if (drawn) drawn->begin_second();
    const at::Tensor loss = with_grad([&] { return passes.part(i); });
    if (drawn) drawn->end_second();
    return loss.defined() ? loss.detach().clone() : loss;  // a closure may return the same tensor each time
  };
  for (int64_t i = 0; i < passes.parts; ++i) {
    numbers.emplace_back();
    if (replay_rng_) numbers.back() = std::make_unique<step::RandomNumbers>(plan.devices(), draws_.value_or(true));
    plan.clear_gradients(programs_);
    if (numbers.back()) numbers.back()->begin_first();
    const at::Tensor loss = with_grad([&] { return passes.part(i); });
    if (numbers.back()) numbers.back()->end_first();
    reduction_.check_scaled();
    losses.push_back(loss.defined() ? loss.detach().clone() : loss);
    course.settled = course.unscaled = false;
    settle_first(plan, course);
    if (plan.uses_first()) plan.add_gradients(firsts, programs_);
    perturbed_passes(plan, course, ascent_groups(plan, /*keeps_gradients=*/plan.uses_first()),
                     [&] { return part_again(i); });
    perturbed_losses.push_back(report_.seen().perturbed_loss);
    plan.add_gradients(seconds, programs_);
    if (numbers.back()) draws_ = draws_.value_or(false) || numbers.back()->drew();
  }
  plan.put_back(seconds, programs_);
  report_.losses(mean_of(losses), mean_of(perturbed_losses));
  course.parts = passes.parts;
  conclude(plan, course);
  First first;
  if (plan.uses_first())
    first = first_of(plan, reduction_.means(plan, passes.parts, firsts));
  else
    first.gradients = plan.first_gradients(programs_);
  finish_passes(plan, first, [&] {
    std::vector<at::Tensor> again;
    for (int64_t i = 0; i < passes.parts; ++i) again.push_back(part_again(i));
    return mean_of(again);
  });
  roll_back.dismiss();
  return report_.seen().loss;
}

STEPPE_INLINE at::Tensor TwoPass::evaluate_rest(const at::Tensor& loss, const Closure& second_pass,
                                                const StepPlan& plan) {
  check_between_steps("step()");
  reduction_.check(plan, 1, false, clipping_.takes_norm());
  reduction_.check_scaled();
  TORCH_CHECK(!plan.is_ahead(),
              "steppe: this method moves the weights before its only pass, which a loop without a closure has made by "
              "the time of step(); use step(closure), or call ascend() before the forward pass and descend() after "
              "backward()");
  const Evaluating here(evaluating_);
  step::BuffersGuard roll_back(buffers(), kept_by(plan));
  step::Course course;
  finish_step(plan, course, loss, nullptr, second_pass, second_pass);
  roll_back.dismiss();
  return reduction_.has_exchange() ? report_.seen().loss : loss;
}

STEPPE_INLINE void TwoPass::remember_rng(const StepPlan& plan) {
  check_between_steps("remember_rng()");
  check_capture(plan);
  remembered_.reset();
  if (!replay_rng_) return;
  remembered_ = std::make_unique<step::RandomNumbers>(plan.devices(), /*observed=*/true);
  remembered_->begin_first();
}

STEPPE_INLINE bool TwoPass::ascend(StepPlan plan, const at::Tensor& loss) {
  check_can_ascend();
  check_capture(plan, /*draws_again=*/remembered_ != nullptr);
  std::unique_ptr<step::RandomNumbers> remembered = std::move(remembered_);
  if (remembered) remembered->end_first();
  TORCH_CHECK(plan.ascents == 1, "steppe: ascend() makes one ascent, but ascents(", plan.ascents,
              ") was set; use step(closure)");
  auto pending = std::make_unique<Pending>();
  const bool ahead = plan.is_ahead();
  reduction_.check(plan, 1, false, clipping_.takes_norm());
  if (!ahead) reduction_.check_scaled();
  report_.begin();
  if (ahead) programs_.find(plan.params());
  if (!ahead) {
    report_.loss(loss);
    if (reduction_.changes_first(plan, perturbs(plan), after_pass_one_ != nullptr)) {
      plan.add_gradients(pending->own, programs_);
      for (std::vector<at::Tensor>& group : pending->own)
        for (at::Tensor& gradient : group)
          if (gradient.defined()) gradient = gradient.detach().clone();
    }
    settle_first(plan, pending->course);
    pending->first = look_at_first(plan, pending->course);
    plan.perturb = pending->first.perturb;
  }
  pending->gradients = plan.gradients(programs_);
  pending->ahead = ahead;
  const std::vector<AscentGroup> groups = ascent_groups(plan, /*keeps_gradients=*/true);
  if (plan.perturb && (moves(groups) || (!ahead && reduction_.joins() && perturbs(plan)))) {
    if (!ahead) pending->after_pass_one = std::make_unique<step::BuffersGuard>(buffers(), kept_by(plan));
    if (!ahead) pending->others = std::make_unique<step::OthersGradients>(attached_.params_beside(plan.params()));
    pending->perturbation = std::make_unique<Perturbation>(groups, memory_, reduction_.sharding());
    note(pending->perturbation->result(), groups, pending->course, ahead ? 1.0 : reduction_.factor(pending->course));
    if (!ahead) pending->numbers = std::move(remembered);
    if (!ahead) pending->statistics.emplace(attached_);
    if (pending->numbers) pending->numbers->begin_second();
  }
  plan.for_each_param([&](const at::Tensor& param) {
    if (param.grad().defined() && programs_.has(param.grad()))
      programs_.clear(param);
    else
      param.mutable_grad() = at::Tensor();
  });
  // Afterwards: views of one buffer count its changes together.
  plan.for_each_param([&](const at::Tensor& param) { pending->cleared.push_back(step::GradientNote::of(param)); });
  const bool another_pass = ahead || report_.seen().perturbed;
  if (another_pass) reduction_.begin_pass(pending->course);
  pending->plan = std::move(plan);
  pending_ = std::move(pending);
  return another_pass;
}

STEPPE_INLINE void TwoPass::check_can_ascend() const {
  TORCH_CHECK(!ascended(), "steppe: ascend() was called twice; call descend() or cancel() first");
  check_between_steps("ascend()");
}

STEPPE_INLINE bool TwoPass::perturbs(const StepPlan& plan) {
  return plan.perturb &&
         std::any_of(plan.groups.begin(), plan.groups.end(), [](const GroupPlan& group) { return group.rho > 0.0; });
}

STEPPE_INLINE void TwoPass::descend(const std::vector<std::vector<at::Tensor>>& params_now,
                                    const at::Tensor& perturbed_loss) {
  TORCH_CHECK(ascended(),
              "steppe: descend() was called before ascend(); call ascend() after the first backward pass, or "
              "use step(closure)");
  bool same = params_now.size() == pending_->plan.groups.size();
  for (size_t k = 0; same && k < params_now.size(); ++k)
    same = step::impls(params_now[k]) == step::impls(pending_->plan.groups[k].params);
  TORCH_CHECK(same,
              "steppe: the optimizer's parameters changed between ascend() and descend(); "
              "call cancel() and start the step again");
  TORCH_CHECK(!(report_.seen().perturbed || pending_->ahead) || reduction_.is_shared() || has_new_gradients(*pending_),
              "steppe: no parameter has a gradient at descend(); make the second forward and backward pass after "
              "ascend(), or call cancel()");
  if (report_.seen().perturbed) report_.perturbed_loss(perturbed_loss);
  const std::unique_ptr<Pending> pending = std::move(pending_);
  if (pending->perturbation) pending->perturbation->restore();
  if (pending->ahead) {
    reduction_.check_scaled();
    return finish_ahead(pending->plan, pending->course);
  }
  if (pending->after_pass_one) pending->after_pass_one->restore();
  if (pending->numbers) pending->numbers->end_second();
  pending->statistics.reset();
  // A plain step descends along the first gradient, unless the caller made a second pass nevertheless.
  if (!report_.seen().perturbed && (reduction_.is_shared() || !has_new_gradients(*pending)))
    pending->plan.put_back(pending->gradients, programs_);
  else
    pending->course.settled = pending->course.unscaled = false;
  pending->others.reset();
  conclude(pending->plan, pending->course);
  finish_passes(pending->plan, pending->first, nullptr);
}

STEPPE_INLINE void TwoPass::cancel() {
  if (!ascended()) return;
  const std::unique_ptr<Pending> pending = std::move(pending_);
  pending->plan.put_back(pending->own.empty() ? pending->gradients : pending->own, programs_);
  programs_.note(pending->plan.params());
}

STEPPE_INLINE void TwoPass::check_capture(const StepPlan& plan, bool draws_again) const {
  if (!is_captured(plan)) return;
  TORCH_CHECK(!reduction_.is_scaled() && !reduction_.is_shared(),
              "steppe: a CUDA graph cannot contain decisions of a GradScaler or of other processes in a step; capture "
              "the passes, and call step() outside");
  TORCH_CHECK(!draws_again,
              "steppe: in a CUDA graph pass 2 cannot draw the random numbers of pass 1 again; call replay_rng(false) "
              "before the capture. Dropout then drops other units in pass 2");
  TORCH_CHECK(!perturbs(plan) || report_.non_finite_steps().is_on_device(),
              "steppe: a step is captured into a CUDA graph before one has run; run one over the same tensors first");
}

STEPPE_INLINE at::Tensor TwoPass::with_grad(const Closure& closure) {
  const c10::AutoGradMode enabled(true);
  return closure();
}

STEPPE_INLINE at::Tensor TwoPass::evaluate_ahead(const Closure& closure, const StepPlan& plan, int64_t parts) {
  const Evaluating here(evaluating_);
  step::BuffersGuard roll_back(buffers(), kept_by(plan));
  programs_.begin(plan.params());
  programs_.find(plan.params());
  report_.begin();
  step::Course course;
  course.parts = parts;
  at::Tensor loss;
  {
    const std::vector<AscentGroup> groups = ascent_groups(plan, /*keeps_gradients=*/true);
    std::optional<Perturbation> perturbation;
    if (plan.perturb && moves(groups)) {
      perturbation.emplace(groups, memory_);
      note(perturbation->result(), groups, course, 1.0);
    }
    plan.clear_gradients(programs_);
    reduction_.begin_pass(course);
    loss = with_grad(closure);
    if (perturbation) perturbation->restore();
  }
  reduction_.check_scaled();
  if (report_.seen().perturbed)
    report_.perturbed_loss(loss);
  else
    report_.loss(loss);
  finish_ahead(plan, course);
  roll_back.dismiss();
  if (!reduction_.has_exchange()) return loss;
  return report_.seen().perturbed ? report_.seen().perturbed_loss : report_.seen().loss;
}

STEPPE_INLINE void TwoPass::finish_ahead(const StepPlan& plan, step::Course& course) {
  conclude(plan, course);
  plan.run(after_pass_one_, programs_);
  if (plan.learns) plan.learns(plan.gradients(programs_));
  finish(plan, plan.first_gradients(programs_), seen_of(plan));
}

STEPPE_INLINE void TwoPass::finish_step(const StepPlan& plan, step::Course& course, const at::Tensor& loss,
                                        const Closure& own_pass, const Closure& second_pass,
                                        const Closure& loss_again) {
  report_.begin();
  report_.loss(loss);
  settle_first(plan, course);
  const First first = look_at_first(plan, course);
  std::vector<AscentGroup> groups;
  if (first.perturb) groups = ascent_groups(plan, /*keeps_gradients=*/false);
  if (moves(groups) || (first.perturb && perturbs(plan) && reduction_.joins())) {
    perturbed_passes(plan, course, std::move(groups), second_pass);
  } else if (own_pass) {
    plan.clear_gradients(programs_);
    reduction_.begin_pass(course);
    own_pass();
    course.settled = course.unscaled = false;
  }
  conclude(plan, course);
  finish_passes(plan, first, loss_again);
}

STEPPE_INLINE void TwoPass::settle_first(const StepPlan& plan, step::Course& course) {
  programs_.find(plan.params());
  if (reduction_.settles_first(perturbs(plan))) reduction_.settle(plan, course);
  if (reduction_.unscales_first(plan, after_pass_one_ != nullptr)) reduction_.unscale(plan, course);
  plan.run(after_pass_one_, programs_);
}

STEPPE_INLINE TwoPass::First TwoPass::look_at_first(const StepPlan& plan, step::Course& course) {
  First first;
  if (course.settled || !plan.uses_first()) {
    const bool any = reduction_.is_shared() || plan.any_gradient();
    if (any && plan.perturb && (plan.decides || plan.needs_first_squares)) first.squares = reduction_.squares(plan);
    first.perturb = plan.perturb && (!any || is_decided(plan, course, first.squares));
    first.gradients = plan.first_gradients(programs_);
    return first;
  }
  // Each process continues with its own gradient, but all decide by the same mean.
  std::vector<std::vector<at::Tensor>> own = plan.gradients(programs_);
  for (std::vector<at::Tensor>& group : own)
    for (at::Tensor& gradient : group)
      if (gradient.defined()) gradient = gradient.detach().clone();
  const std::vector<std::vector<at::Tensor>> means = reduction_.means(plan, 1, own);
  first = first_of(plan, means);
  first.perturb = plan.perturb && is_decided(plan, course, first.squares);
  if (first.perturb) return first;
  plan.put_back(means, programs_);
  course.settled = true;
  return first;
}

STEPPE_INLINE TwoPass::First TwoPass::first_of(const StepPlan& plan, std::vector<std::vector<at::Tensor>> means) const {
  First first;
  if (plan.decides || plan.needs_first_squares) {
    std::vector<at::Tensor> all;
    for (const std::vector<at::Tensor>& group : means)
      for (const at::Tensor& mean : group)
        if (mean.defined()) all.push_back(mean);
    first.squares = kernels::squares(all);
  }
  for (size_t k = 0; k < means.size(); ++k)
    if (!plan.groups[k].needs_first_gradient) std::fill(means[k].begin(), means[k].end(), at::Tensor());
  first.gradients = std::move(means);
  return first;
}

STEPPE_INLINE void TwoPass::perturbed_passes(const StepPlan& plan, step::Course& course,
                                             std::vector<AscentGroup> groups, const Closure& second_pass) {
  const step::BuffersGuard after_pass_one(buffers(), kept_by(plan));
  const step::OthersGradients others(attached_.params_beside(plan.params()));
  Ascents ascents;
  report_.perturbed();
  for (int64_t k = 1; k <= plan.ascents; ++k) {
    if (moves(groups)) {
      const AscentResult& result = ascents.add(groups, memory_of_ascent(k), reduction_.sharding());
      if (k == 1)
        note(result, groups, course, reduction_.factor(course));
      else
        reduction_.note_non_finite(result.finite.logical_not(), course);
    }
    groups.clear();
    plan.clear_gradients(programs_);
    const bool is_last = k == plan.ascents;
    if (is_last || !reduction_.joins()) reduction_.begin_pass(course);
    const step::Attached::OthersStatistics statistics(attached_);
    const at::Tensor perturbed_loss = second_pass();
    course.settled = course.unscaled = false;
    if (is_last) {
      report_.perturbed_loss(perturbed_loss);
    } else {
      if (!reduction_.joins()) reduction_.settle(plan, course);
      if (reduction_.unscales_first(plan, false)) reduction_.unscale(plan, course);
      groups = ascent_groups(plan, /*keeps_gradients=*/false);
    }
  }
  ascents.restore();
}

STEPPE_INLINE void TwoPass::note(const AscentResult& result, const std::vector<AscentGroup>& groups,
                                 step::Course& course, double scale) {
  report_.perturbed();
  if (!result.finite.defined()) return;  // of a process that only joins
  if (report_.seen().layers.empty()) report_.ascent(result, groups, scale);
  reduction_.note_non_finite(result.finite.logical_not(), course);
}

STEPPE_INLINE void TwoPass::conclude(const StepPlan& plan, step::Course& course) {
  try {
    reduction_.conclude(plan, course, report_);
  } catch (const step::Overflow&) {
    programs_.end(plan.params());
    throw;
  }
}

STEPPE_INLINE void TwoPass::finish_passes(const StepPlan& plan, const First& first, const Closure& loss_again) {
  descent::StepGradients seen = seen_of(plan);
  seen.first_squares = first.squares;
  if (loss_again)
    seen.loss_at = [&](const std::vector<std::vector<at::Tensor>>& v, double radius) {
      return loss_at(plan, v, radius, loss_again);
    };
  finish(plan, first.gradients, seen);
}

STEPPE_INLINE descent::StepGradients TwoPass::seen_of(const StepPlan& plan) const {
  descent::StepGradients seen;
  seen.perturbed = report_.seen().perturbed;
  seen.step = plan.step;
  return seen;
}

STEPPE_INLINE bool TwoPass::is_decided(const StepPlan& plan, step::Course& course, const at::Tensor& squares) {
  if (!plan.decides) return true;
  const auto squared_norm = squares.item<double>();
  if (std::isfinite(squared_norm)) return plan.decides(squared_norm);
  reduction_.note_non_finite(squares.isfinite().logical_not(), course);
  return false;
}

STEPPE_INLINE double TwoPass::loss_at(const StepPlan& plan, const std::vector<std::vector<at::Tensor>>& v,
                                      double radius, const Closure& loss_again) {
  const step::BuffersGuard as_they_are(buffers(), kept_by(plan));
  const step::OthersGradients others(attached_.params_beside(plan.params()));
  std::vector<AscentGroup> groups;
  for (size_t k = 0; k < plan.groups.size(); ++k) {
    AscentGroup& group = groups.emplace_back();
    group.rho = radius;
    group.placement = plan.groups[k].placement;
    group.fused = plan.groups[k].fused;
    for (const at::Tensor& param : plan.groups[k].params)
      if (param.grad().defined()) group.params.push_back(param);
    group.gradients = v[k];
  }
  const step::GradientsAside own(plan.params());
  const Perturbation there(groups, memory_);
  const step::Attached::OthersStatistics statistics(attached_);
  const at::Tensor loss = loss_again();
  TORCH_CHECK(loss.defined() && loss.numel() == 1,
              "steppe: this method evaluates the loss at other weights, but the closure does not return one; let it "
              "return the loss, a tensor of one element");
  return reduction_.mean(loss.item<double>(), loss);
}

STEPPE_INLINE std::shared_ptr<PerturbationMemory> TwoPass::memory_of_ascent(int64_t k) {
  if (k == 1) return memory_;
  while (static_cast<int64_t>(more_memory_.size()) < k - 1)
    more_memory_.push_back(std::make_shared<PerturbationMemory>());
  return more_memory_[static_cast<size_t>(k) - 2];
}

STEPPE_INLINE std::vector<AscentGroup> TwoPass::ascent_groups(const StepPlan& plan, bool keeps_gradients) const {
  std::vector<AscentGroup> groups;
  if (!plan.perturb) return groups;
  for (const GroupPlan& group : plan.groups) {
    AscentGroup& out = groups.emplace_back();
    out.direction = group.direction;
    out.rho = group.rho / static_cast<double>(plan.ascents);
    out.in_norm = group.in_norm;
    out.fused = group.fused;
    out.placement = group.placement;
    for (const at::Tensor& param : group.params) {
      if (!participation_.includes(param)) continue;
      if (group.direction.source) {
        append_known(out, param, group.direction.source(param));
        continue;
      }
      if (!param.grad().defined()) {
        if (reduction_.sharding() == nullptr) continue;
        out.spare.push_back(true);  // the others may have some of it
        out.params.push_back(param);
        out.gradients.push_back(at::zeros_like(param.detach()));
        out.norm_gains.push_back(attached_.is_norm_gain(param));
        continue;
      }
      // Held by the parameter alone: neither a hook, a bucket nor the user will read it again.
      out.spare.push_back(!keeps_gradients && !group.needs_first_gradient && param.grad().use_count() == 1);
      out.params.push_back(param);
      out.gradients.push_back(param.grad());
      out.norm_gains.push_back(attached_.is_norm_gain(param));
    }
  }
  return groups;
}

STEPPE_INLINE void TwoPass::append_known(AscentGroup& group, const at::Tensor& param,
                                         const at::Tensor& direction) const {
  if (!direction.defined()) return;
  group.spare.push_back(false);
  group.params.push_back(param);
  group.gradients.push_back(direction);
  group.norm_gains.push_back(attached_.is_norm_gain(param));
}

STEPPE_INLINE bool TwoPass::has_new_gradients(const Pending& pending) const {
  size_t i = 0;
  bool any = false;
  pending.plan.for_each_param(
      [&](const at::Tensor& param) { any = any || !(step::GradientNote::of(param) == pending.cleared[i++]); });
  return any;
}

STEPPE_INLINE bool TwoPass::moves(const std::vector<AscentGroup>& groups) {
  return std::any_of(groups.begin(), groups.end(),
                     [](const AscentGroup& group) { return group.rho > 0.0 && !group.params.empty(); });
}

STEPPE_INLINE void TwoPass::finish(const StepPlan& plan, const std::vector<std::vector<at::Tensor>>& first,
                                   const descent::StepGradients& seen) {
  plan.descend(first, seen, programs_, [this](const at::Tensor& param) { return participation_.includes(param); });
  plan.run(before_descent_, programs_);
  if (clipping_.on()) {
    const at::Tensor norm = reduction_.norm_of_whole(plan, clipping_.takes_norm());
    plan.run([&](std::vector<at::Tensor>& gradients) { report_.unclipped_norm(clipping_.clip(gradients, norm)); },
             programs_);
  }
  programs_.end(plan.params());
}

STEPPE_NAMESPACE_END
