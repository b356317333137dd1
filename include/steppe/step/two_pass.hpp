// One step of the family: pass 1, ascent, pass 2, restore, final gradient.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <steppe/descent/step_gradients.hpp>
#include <steppe/perturbation.hpp>
#include <steppe/report.hpp>
#include <steppe/step/attached.hpp>
#include <steppe/step/buffers_guard.hpp>
#include <steppe/step/gradient_clipping.hpp>
#include <steppe/step/programs_gradients.hpp>
#include <steppe/step/reduction.hpp>
#include <steppe/step/step_plan.hpp>
#include <steppe/step/step_report.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

namespace step {
class RandomNumbers;
}

/// The engine: knows tensors, not optimizers. It also wraps the closure of an existing optimizer:
///
///     steppe::TwoPass two_pass;
///     optimizer.step([&] { return two_pass.evaluate(closure, plan); });
class TwoPass {
 public:
  /// Computes the loss and calls backward().
  using Closure = std::function<at::Tensor()>;

  TwoPass();
  /// Moved, not copied: a step that has begun belongs to one engine.
  ///@{
  TwoPass(TwoPass&&) noexcept;
  TwoPass& operator=(TwoPass&&) noexcept;
  ///@}
  ~TwoPass();

  /// What a step calls. `loss`, where given, computes the loss of the same batch without backward(), for methods that
  /// evaluate it at other weights; `ascent`, where given, replaces the closure in pass 1: the perturbation comes from
  /// another batch. `parts` over 1: `part(i)` is a pass over one of them, and replaces the closure.
  struct Passes {
    Closure closure;                          ///< computes the loss and calls backward()
    Closure loss;                             ///< computes the loss alone
    Closure ascent;                           ///< pass 1 over another batch
    int64_t parts = 1;                        ///< the number of micro-batches
    std::function<at::Tensor(int64_t)> part;  ///< the pass over one of them
  };

  /// The model's buffers are guarded in pass 2, the gradients of its other parameters are those of pass 1, and its
  /// normalization gains are known to AdaptiveScale; or buffers alone. Adds to what was attached before.
  ///@{
  void attach(const torch::nn::Module& model);
  void attach(const std::vector<at::Tensor>& buffers);
  ///@}
  /// Which parameters are perturbed.
  ///@{
  step::Participation& participation() { return participation_; }
  const step::Participation& participation() const { return participation_; }
  ///@}

  /// Whether pass 2 draws the random numbers of pass 1 again; on by default.
  ///@{
  void replay_rng(bool on);
  bool replays_rng() const { return replay_rng_; }
  ///@}
  /// Called with all gradients after pass 1, before the ascent.
  void after_pass_one(GradientHook hook);
  /// Called with the final gradients, at w, before they are clipped.
  void before_descent(GradientHook hook);
  /// Diagnostics of the last step.
  const Report& report() const { return report_.seen(); }
  /// The report of the last step, and counts of steps that were not perturbed, or not clipped, because a norm was not
  /// finite.
  ///@{
  step::StepReport& notes() { return report_; }
  const step::StepReport& notes() const { return report_; }
  ///@}
  /// From the gradients of the passes to those of the step: exchange, parts, sharding and loss scale.
  ///@{
  step::Reduction& reduction() { return reduction_; }
  const step::Reduction& reduction() const { return reduction_; }
  ///@}
  /// How the final gradients are clipped; not at all by default.
  ///@{
  step::GradientClipping& clipping() { return clipping_; }
  const step::GradientClipping& clipping() const { return clipping_; }
  ///@}
  /// All guarded buffers.
  const std::vector<at::Tensor>& buffers() const { return attached_.buffers(); }
  /// What is kept between steps: perturbed or original weights, and the kernels' scratch.
  const PerturbationMemory& memory() const { return *memory_; }
  /// Bytes of this memory, and of copies of large buffers.
  int64_t memory_bytes() const;
  /// Frees this memory; the next step allocates it again.
  void release_memory();
  /// Called between steps: gradients that exist now are not made by the next pass.
  void note_gradients(const std::vector<at::Tensor>& params);
  /// Throws inside a step: in its closure or hooks, or between ascend() and descend().
  void check_between_steps(const char* call) const;

  /// Whether the step is being captured into a CUDA graph, on the current stream of a parameter's device.
  static bool is_captured(const StepPlan& plan);

  /// Both passes and what lies between; the final gradients are in the parameters' grad() at the end.
  ///
  /// Returns the loss of pass 1. If the closure or a hook throws, weights and buffers are restored; random numbers that
  /// pass 1 has drawn stay drawn.
  ///@{
  at::Tensor evaluate(const Closure& closure, const StepPlan& plan);
  at::Tensor evaluate(const Passes& passes, const StepPlan& plan);
  ///@}

  /// The same for a loop that has made pass 1 itself: its gradients are in grad(), `loss` is its loss if that is known,
  /// and `second_pass` adds the gradients at w + e.
  at::Tensor evaluate_rest(const at::Tensor& loss, const Closure& second_pass, const StepPlan& plan);

  /// Records what pass 1 of a two-phase step draws on this thread from now on, so that pass 2 draws it again.
  void remember_rng(const StepPlan& plan);

  /// Two-phase use, after pass 1: perturbs the weights and clears the gradients. Returns false if this step has no
  /// second pass. Where the direction is known before pass 1, it is called before that pass, which is the only one, and
  /// returns true.
  bool ascend(StepPlan plan, const at::Tensor& loss = {});

  /// Whether a two-phase step has begun: ascend() was called, and neither descend() nor cancel() after it.
  bool ascended() const { return pending_ != nullptr; }
  /// Throws c10::Error where ascend() may not be called: inside a step, or a second time.
  void check_can_ascend() const;
  /// The plan of the two-phase step that has begun, or null.
  StepPlan* pending_plan();

  /// Whether a step with this plan has a second pass, if there are gradients.
  static bool perturbs(const StepPlan& plan);

  /// Two-phase use, after pass 2: restores the weights and leaves the final gradients in the parameters' grad().
  void descend(const std::vector<std::vector<at::Tensor>>& params_now, const at::Tensor& perturbed_loss = {});

  /// Gives up a two-phase step: the weights and the gradients of pass 1 are restored.
  void cancel();

 private:
  class Ascents;
  class Evaluating;
  struct Pending;

  /// Throws on what a CUDA graph would get wrong, or stop at half-way.
  void check_capture(const StepPlan& plan, bool draws_again) const;
  void check_capture(const StepPlan& plan) const { check_capture(plan, plan.perturb && replay_rng_); }

  /// Copies of buffers to reuse. Null in a CUDA graph, which copies at each replay: the host does not see its changes.
  step::KeptBuffers* kept_by(const StepPlan& plan);

  static at::Tensor with_grad(const Closure& closure);

  /// One pass over all parts, whose gradients are summed.
  Closure together(const Passes& passes, const StepPlan& plan);
  static at::Tensor mean_of(const std::vector<at::Tensor>& losses);

  /// Every part is perturbed along its own gradient.
  at::Tensor evaluate_each(const Passes& passes, const StepPlan& plan);

  /// A step whose direction is known before its only pass.
  at::Tensor evaluate_ahead(const Closure& closure, const StepPlan& plan, int64_t parts);

  void finish_ahead(const StepPlan& plan, step::Course& course);

  /// What follows pass 1, whose gradients are in grad(): the ascent, pass 2 and the descent's part. `own_pass`:
  /// replaces pass 1 where nothing is perturbed, if there is one. `loss_again`: computes the loss at the current
  /// weights.
  void finish_step(const StepPlan& plan, step::Course& course, const at::Tensor& loss, const Closure& own_pass,
                   const Closure& second_pass, const Closure& loss_again);

  /// Makes the gradients of pass 1 those for the ascent.
  void settle_first(const StepPlan& plan, step::Course& course);

  /// What a step uses of pass 1 beside the perturbation.
  struct First {
    std::vector<std::vector<at::Tensor>> gradients;  ///< of the groups whose descent needs them
    at::Tensor squares;
    bool perturb = false;
  };
  First look_at_first(const StepPlan& plan, step::Course& course);
  First first_of(const StepPlan& plan, std::vector<std::vector<at::Tensor>> means) const;

  /// Makes the ascents and the pass after each, then restores w.
  void perturbed_passes(const StepPlan& plan, step::Course& course, std::vector<AscentGroup> groups,
                        const Closure& second_pass);

  /// Writes into the report; `scale`: a factor of the gradients.
  void note(const AscentResult& result, const std::vector<AscentGroup>& groups, step::Course& course, double scale);

  /// Settles and unscales the last pass's gradients. Throws a step::Overflow.
  void conclude(const StepPlan& plan, step::Course& course);

  /// The descent's part, after conclude().
  void finish_passes(const StepPlan& plan, const First& first, const Closure& loss_again);

  descent::StepGradients seen_of(const StepPlan& plan) const;

  /// Decides by |g|^2; the step is not perturbed where that is not finite.
  bool is_decided(const StepPlan& plan, step::Course& course, const at::Tensor& squares);

  /// The loss at w + radius * v / |v|, for descents that need it between the passes and the base's step. Leaves
  /// gradients, buffers and statistics as they are.
  double loss_at(const StepPlan& plan, const std::vector<std::vector<at::Tensor>>& v, double radius,
                 const Closure& loss_again);

  /// The memory of one of several nested ascents, which each need their own.
  std::shared_ptr<PerturbationMemory> memory_of_ascent(int64_t k);

  std::vector<AscentGroup> ascent_groups(const StepPlan& plan, bool keeps_gradients) const;

  /// Adds a direction that is known before pass 1; if there is none yet, the weight does not move.
  void append_known(AscentGroup& group, const at::Tensor& param, const at::Tensor& direction) const;

  /// Whether there are new gradients since ascend(): the program's own exist in any case, and are written to or not.
  bool has_new_gradients(const Pending& pending) const;

  /// Whether something would be perturbed: a radius over 0 and a gradient.
  static bool moves(const std::vector<AscentGroup>& groups);

  /// The descent's part, the last hook and the clipping; the weights are w again.
  void finish(const StepPlan& plan, const std::vector<std::vector<at::Tensor>>& first,
              const descent::StepGradients& seen);

  step::Attached attached_;
  step::Participation participation_;
  step::KeptBuffers kept_buffers_;
  step::ProgramsGradients programs_;
  bool evaluating_ = false;
  bool replay_rng_ = true;
  std::optional<bool> draws_;  ///< a closure of a step has drawn random numbers, if there was a step
  GradientHook after_pass_one_, before_descent_;
  std::shared_ptr<PerturbationMemory> memory_;
  std::vector<std::shared_ptr<PerturbationMemory>> more_memory_;
  std::unique_ptr<step::RandomNumbers> remembered_;
  std::unique_ptr<Pending> pending_;
  step::StepReport report_;
  step::Reduction reduction_;
  step::GradientClipping clipping_;
};

STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/step/two_pass.ipp>
#endif
