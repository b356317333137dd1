// SharpnessAware<Base, Ascent, Descent, Policy>: the optimizer that a user holds.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <c10/util/Type.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include <steppe/ascent/gradient.hpp>
#include <steppe/base/traits.hpp>
#include <steppe/descent/centralize.hpp>
#include <steppe/descent/perturbed_gradient.hpp>
#include <steppe/descent/step_gradients.hpp>
#include <steppe/direction.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/options.hpp>
#include <steppe/policy/every_step.hpp>
#include <steppe/sharding.hpp>
#include <steppe/step/gradient_exchange.hpp>
#include <steppe/step/group_settings.hpp>
#include <steppe/step/loss_scale.hpp>
#include <steppe/step/model.hpp>
#include <steppe/step/observed.hpp>
#include <steppe/step/optimizer_checkpoint.hpp>
#include <steppe/step/parameter_check.hpp>
#include <steppe/step/recorder.hpp>
#include <steppe/step/tail_watch.hpp>
#include <steppe/step/two_pass.hpp>
#include <steppe/training/grad_scaler.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

namespace detail {
template <class BaseOptions>
using NotOurs = std::enable_if_t<!std::is_same_v<BaseOptions, Options>>;
}  // namespace detail

/// Any LibTorch optimizer made sharpness-aware: each evaluation of the closure becomes two, at w and at w + e, and the
/// base optimizer's own step consumes the second gradient at w (arXiv 2010.01412).
///
///     e = rho * d / |d|,  d made from g by Ascent;  final gradient made from g+ (and g) by Descent;
///     Policy chooses the steps
///
/// It is a Base: schedulers, parameter groups, save and load work as before. Cost: two passes of the model per step.
/// Memory: usually none, see Placement. Weight decay belongs to the base step at w, not to the perturbation.
///
///     using torch::optim::SGD;
///     steppe::SharpnessAware<SGD> sam(*model, torch::optim::SGDOptions(0.1), steppe::Options().rho(0.1));
///     auto loss = sam.step(closure);
///
/// Hyper-parameters belong to parameter groups: options(i), ascent(i), descent(i). They may change at any time and are
/// checked before a step changes anything. A group that is added later inherits the settings given to the constructor.
template <class Base, class Ascent = ascent::Gradient, class Descent = descent::PerturbedGradient,
          class Policy = policy::EveryStep>
class SharpnessAware : public Base, public step::UsesLossScale {
  static_assert(
      std::is_base_of_v<torch::optim::Optimizer, Base>,
      "steppe: Base must be an optimizer that derives from torch::optim::Optimizer, such as torch::optim::SGD");
  static_assert(detail::is_link<Ascent>,
                "steppe: Ascent must be an ascent link, such as steppe::ascent::ZScoreFilter, a Chain of links, or a "
                "callable (std::vector<at::Tensor>& direction, const std::vector<at::Tensor>& params)");
  static_assert(std::is_invocable_v<Descent&, std::vector<at::Tensor>&, const std::vector<at::Tensor>&> ||
                    detail::IsTogether<Descent>::value,
                "steppe: Descent must be callable as (std::vector<at::Tensor>& final, const std::vector<at::Tensor>& "
                "first), such as steppe::descent::PerturbedGradient");
  static_assert(
      !detail::is_ahead_of_pass_one<Ascent> ||
          !(Descent::needs_first_gradient || detail::NeedsFirstSquares<Descent>::value),
      "steppe: this descent mixes the gradients of two passes, but the ascent's direction is known before pass "
      "1, so that there is only one");
  static_assert(
      !detail::is_ahead_of_pass_one<Ascent> || !detail::HasDecides<Policy>::value,
      "steppe: this policy decides after pass 1, but the ascent's direction is known before it, so that there "
      "is only one pass");
  static_assert(!detail::NeedsRawAscent<Descent>::value || std::is_same_v<Ascent, ascent::Gradient>,
                "steppe: XSAM takes the gradient for the ascent's direction; use it with steppe::ascent::Gradient");
  static_assert(detail::StepsWithoutClosure<Base>::value ||
                    !(detail::keeps_state<Ascent> || detail::KeepsState<Descent>::value ||
                      detail::HasDecides<Policy>::value),
                "steppe: this method keeps state from step to step, but the base optimizer evaluates its closure "
                "several times a step");

 public:
  /// Computes the loss and calls backward().
  using Closure = torch::optim::Optimizer::LossClosure;

  /// The parameters of a module, given as such, by its holder or by a shared_ptr. Its buffers are guarded in pass 2 and
  /// its normalization gains known, as by attach().
  template <class Model, class BaseOptions = typename detail::OptionsOf<Base>::Type,
            class = detail::NotOurs<BaseOptions>, class = std::enable_if_t<step::is_model<Model>>>
  SharpnessAware(const Model& model, const BaseOptions& base_options, Options options = {}, Ascent ascent = {},
                 Descent descent = {})
      : SharpnessAware(step::module_of(model).parameters(), base_options, std::move(options), std::move(ascent),
                       std::move(descent)) {
    attach(model);
  }

  /// A list of parameters.
  template <class BaseOptions = typename detail::OptionsOf<Base>::Type, class = detail::NotOurs<BaseOptions>>
  SharpnessAware(std::vector<at::Tensor> params, const BaseOptions& base_options, Options options = {},
                 Ascent ascent = {}, Descent descent = {})
      : Base(detail::checked(std::move(params)), base_options), defaults_of_groups_{options, ascent, descent} {
    initialize();
  }

  /// Parameter groups; all start with the same options, which options(i) changes.
  template <class BaseOptions = typename detail::OptionsOf<Base>::Type, class = detail::NotOurs<BaseOptions>>
  SharpnessAware(std::vector<torch::optim::OptimizerParamGroup> groups, const BaseOptions& base_options,
                 Options options = {}, Ascent ascent = {}, Descent descent = {})
      : Base(detail::checked(std::move(groups)), base_options), defaults_of_groups_{options, ascent, descent} {
    initialize();
  }

  /// With the base's default options, if it has any.
  ///@{
  template <class Model, class AnyBase = Base, class = std::enable_if_t<step::is_model<Model>>,
            class = detail::WithDefaults<AnyBase, std::vector<at::Tensor>>>
  explicit SharpnessAware(const Model& model) : SharpnessAware(step::module_of(model).parameters()) {
    attach(model);
  }
  template <class AnyBase = Base, class = detail::WithDefaults<AnyBase, std::vector<at::Tensor>>>
  explicit SharpnessAware(std::vector<at::Tensor> params) : Base(detail::checked(std::move(params))) {
    initialize();
  }
  template <class AnyBase = Base, class = detail::WithDefaults<AnyBase, std::vector<torch::optim::OptimizerParamGroup>>>
  explicit SharpnessAware(std::vector<torch::optim::OptimizerParamGroup> groups)
      : Base(detail::checked(std::move(groups))) {
    initialize();
  }
  ///@}

  /// Does not compile; the message explains the mistake.
  template <class Parameters, class Given, class... Others, class = std::enable_if_t<std::is_same_v<Given, Options>>>
  SharpnessAware(Parameters&&, const Given&, Others&&...) : SharpnessAware(Misused()) {
    static_assert(
        !std::is_same_v<Parameters, Parameters>,
        "steppe: the second argument holds the base optimizer's options, such as torch::optim::SGDOptions(0.1); "
        "steppe::Options is the third");
  }

  /// Guards the model's buffers (BatchNorm statistics and counters, custom ones) in pass 2, keeps that pass from the
  /// gradients of parameters of the model that another optimizer has, and distinguishes normalization gains from
  /// biases. Call it again after adding buffers, and for every other module that the passes use.
  template <class Model>
  std::enable_if_t<step::is_model<Model>> attach(const Model& model) {
    two_pass_.attach(step::module_of(model));
    recorder_.learn(all_params(), two_pass_.buffers());
  }
  /// Guards these buffers as well.
  void attach(std::vector<at::Tensor> buffers) {
    two_pass_.attach(buffers);
    recorder_.learn(all_params(), two_pass_.buffers());
  }
  /// Guards the buffers of a torch::jit::Module, or of any other object that has buffers().
  template <class Script>
  std::enable_if_t<step::has_buffers<Script>> attach(const Script& module) {
    attach(step::buffers_of(module));
  }

  /// Settings of one parameter group, to read or to change. Throws c10::Error if there is no such group.
  ///@{
  Options& options(size_t group = 0) { return group_at(group).options; }
  Ascent& ascent(size_t group = 0) { return group_at(group).ascent; }
  Descent& descent(size_t group = 0) { return group_at(group).descent; }
  ///@}
  /// The policy, one for all groups.
  Policy& policy() { return policy_; }

  /// Adds a group, which inherits the settings given to the constructor.
  void add_param_group(const torch::optim::OptimizerParamGroup& group) {
    Base::add_param_group(group);
    sync_groups();
    recorder_.learn(all_params(), two_pass_.buffers());
  }
  /// Adds a group with options of its own instead of the inherited ones.
  void add_param_group(const torch::optim::OptimizerParamGroup& group, Options options) {
    Group group_settings = defaults_of_groups_;
    group_settings.options = std::move(options);
    group_settings.validate();
    sync_groups();
    add_param_group(group);
    groups_.back().options = std::move(group_settings.options);
  }

  /// Sets every group's rho as a function of the step, except in groups with rho 0.
  SharpnessAware& rho_schedule(const schedule::Schedule& rho) {
    sync_groups();
    defaults_of_groups_.options.rho_schedule(rho);
    for (Group& group : groups_) group.options.rho_schedule(rho);
    return *this;
  }

  /// Perturbs every k-th step only (step % k == 0); the others are plain steps with one pass.
  SharpnessAware& every(int64_t k) {
    steps_.every(k);
    return *this;
  }
  /// Perturbs from step n (counted from 0) on.
  SharpnessAware& from_step(int64_t n) {
    steps_.from_step(n);
    return *this;
  }
  /// Perturbs in the last `share` of `total` steps.
  SharpnessAware& last(double share, int64_t total) {
    steps_.last(share, total);
    return *this;
  }

  /// K ascents of rho / K each, with a new gradient after each: e = e_1 + ... + e_K, 1 + K passes. With step() and
  /// step(closure) only; not for directions that keep state. The report describes e_1.
  SharpnessAware& ascents(int64_t count) {
    TORCH_CHECK(count >= 1, "steppe: ascents(count) needs at least one, got ", count);
    TORCH_CHECK(!detail::is_ahead_of_pass_one<Ascent> || count == 1, "steppe: ascents(", count,
                ") needs the gradient of the pass before each, but this method's only pass comes after its ascent");
    TORCH_CHECK(!detail::keeps_state<Ascent> || count == 1, "steppe: ascents(", count,
                ") would update this method's state after each of them; it takes one gradient a step");
    ascents_ = count;
    return *this;
  }
  /// From now on this closure takes the place of pass 1 in step(closure): the perturbation comes from its loss, that of
  /// another batch, and step() returns that loss. Null: from the step's own closure again. Errors: methods that use the
  /// first gradient, which is not of the step's batch, for more than the perturbation.
  SharpnessAware& ascend_on(Closure closure) {
    TORCH_CHECK(
        !detail::is_ahead_of_pass_one<Ascent>,
        "steppe: ascend_on() gives another batch for pass 1, but this method's only pass comes after its ascent");
    TORCH_CHECK(
        !(Descent::needs_first_gradient || detail::NeedsFirstSquares<Descent>::value ||
          detail::HasDecides<Policy>::value),
        "steppe: ascend_on() gives another batch for pass 1, but this method uses that pass's gradient in the step or "
        "in its decision as well; use it with methods that perturb along it alone, such as SAM");
    ascend_on_ = std::move(closure);
    return *this;
  }

  /// Parameters that are neither perturbed nor counted in the norm: sam.exclude(steppe::biases_and_norms(*model)).
  SharpnessAware& exclude(const std::vector<at::Tensor>& params) {
    detail::check_members(params, all_params());
    two_pass_.participation().exclude(params);
    return *this;
  }
  /// Perturbs these parameters only, whatever was excluded before: sam.only(steppe::norms(*model)) is SAM-ON (arXiv
  /// 2306.04226). Parameters that are added later are not perturbed.
  SharpnessAware& only(const std::vector<at::Tensor>& params) {
    detail::check_members(params, all_params());
    two_pass_.participation().only(params);
    return *this;
  }

  /// Whether pass 2 draws the random numbers of pass 1 again (dropout masks); on by default.
  void replay_rng(bool on) { two_pass_.replay_rng(on); }
  /// Called with all gradients after pass 1, before the ascent: means over processes and parts or, with Perturb::Each,
  /// those of this process, or of each part in turn.
  void after_pass_one(GradientHook hook) { two_pass_.after_pass_one(std::move(hook)); }
  /// Called with the final gradients before the base step, at the restored weights: the place to clip.
  void before_descent(GradientHook hook) { two_pass_.before_descent(std::move(hook)); }

  /// Clips the final gradients of all groups together before the base step, after before_descent(), as
  /// torch::nn::utils::clip_grad_norm_ does: g <- g * min(1, max_norm / (N(g) + 1e-6)). The norm before it is
  /// report().unclipped_norm. One that is not finite clips nothing and is counted by non_finite_clips().
  SharpnessAware& clip_grad_norm(double max_norm, double norm_type = 2.0) {
    two_pass_.clipping().norm(max_norm, norm_type);
    return *this;
  }
  /// Clamps each component of the final gradients to [-limit, limit], after clip_grad_norm() if both are set.
  SharpnessAware& clip_grad_value(double limit) {
    two_pass_.clipping().value(limit);
    return *this;
  }

  /// The losses are multiplied by this scaler. Gradients are divided once, before the descent and before anything that
  /// mixes, keeps or reads them. A step in which a pass overflows is skipped: weights, and buffers as far as step() has
  /// seen them change, are as before it, step() returns the loss, and skipped_steps() counts it. The program calls
  /// update(). Errors: a base that evaluates its closure several times a step.
  SharpnessAware& scaler(const training::GradScaler& scaler) {
    use_loss_scale(scaler.shared());
    return *this;
  }
  /// Steps that were skipped because a gradient overflowed.
  int64_t skipped_steps() const { return skipped_steps_; }

  /// Every process of `exchange` trains this model with its share of the batch: the final gradient is the mean over
  /// all, and so are the loss that step() returns and those of the report, whose norms are of this process. perturb()
  /// sets the gradient that the weights are perturbed along. A method that mixes, keeps or decides by the first
  /// gradient uses the mean in any case, which costs one more exchange; Perturb::Each is an error where the direction
  /// itself is made of earlier gradients. A process without gradients takes part. A step waits once for the device, so
  /// that all processes agree. Null: no exchange from now on.
  ///
  /// Errors, on all processes and with no weight changed: a loss or gradient that is not finite, without a scaler; an
  /// exception in a pass of one of them, or in after_pass_one().
  SharpnessAware& exchange(std::shared_ptr<GradientExchange> exchange) {
    two_pass_.check_between_steps("exchange()");
    two_pass_.reduction().exchange(std::move(exchange));
    return *this;
  }
  /// The same, with perturb().
  SharpnessAware& exchange(std::shared_ptr<GradientExchange> exchange, Perturb perturb) {
    return this->exchange(std::move(exchange)).perturb(perturb);
  }
  /// The gradient along which the parts of a step are perturbed, that is processes and the parts of step(parts, part);
  /// Perturb::Each by default.
  SharpnessAware& perturb(Perturb perturb) {
    two_pass_.check_between_steps("perturb()");
    two_pass_.reduction().perturb(perturb);
    return *this;
  }

  /// Every process holds a part of the parameters, with the gradients of that part: means over all processes, as a
  /// reduce-scatter leaves them. Norms, means and quantiles are computed over the whole, by `sum`, so that the step is
  /// that of one process with all parameters. `shards` gives the place of each part; without it, all parameters are
  /// split between rows. Each ascent makes the same sums on every process, whatever its data: one; for ZSharp five
  /// (eight in float64, or with Threshold::Global); one more where rows are split and centralized. `sum` null: whole
  /// parameters.
  ///
  /// The ascent uses ATen operations, not the fused kernels. Errors, before a step: custom links; energy() and
  /// z_score(Robust); descents that take sums over the gradient; exchange() beside it.
  SharpnessAware& sharded(SumOverShards sum, std::vector<Shard> shards = {}) {
    two_pass_.check_between_steps("sharded()");
    const std::vector<at::Tensor> params = all_params();
    TORCH_CHECK(!params.empty(), "steppe: sharded() was called on an optimizer without parameters");
    two_pass_.reduction().shard(
        sum ? std::make_shared<const Sharding>(std::move(sum), std::move(shards), params.front()) : nullptr);
    return *this;
  }

  /// For loops without a closure: whether the calling thread's forward passes are recorded, from now on; the first
  /// iteration begins here. On by default on the thread that makes the optimizer; step(closure) and ascend() turn it
  /// off.
  void replay(bool on) {
    if (!on) return recorder_.stop("replay(false)");
    if constexpr (kReplays) recorder_.start(all_params(), two_pass_.buffers(), true);
  }
  /// When a loop without a closure is checked by a third pass.
  void replay(Verify when) { recorder_.verify(when); }

  /// As in the base. For a loop without a closure an iteration begins here at the latest.
  template <class... Arguments>
  void zero_grad(Arguments... arguments) {
    Base::zero_grad(arguments...);
    two_pass_.note_gradients(all_params());
    recorder_.learn(all_params(), two_pass_.buffers());
    recorder_.gradients_are_cleared();
  }

  /// Diagnostics of the last step.
  const Report& report() const { return two_pass_.report(); }
  /// Steps taken so far; a CUDA graph that repeats a captured one does not count.
  int64_t steps() const { return step_; }
  /// Steps whose gradient norm was not finite, so that nothing was perturbed. Reading it waits for the device.
  int64_t non_finite_steps() const { return two_pass_.notes().non_finite_steps().value(); }
  /// Steps that clip_grad_norm() left unclipped because the norm was not finite. Reading it waits for the device.
  int64_t non_finite_clips() const { return two_pass_.notes().non_finite_clips().value(); }
  /// Bytes of the buffers that are kept between steps, beside the base optimizer's state.
  int64_t memory_bytes() const {
    int64_t sum = two_pass_.memory_bytes();
    for (const Group& group : groups_) sum += group.bytes();
    return sum;
  }
  /// Frees these buffers; the next step allocates them again. Errors: a step was captured into a CUDA graph.
  void release_memory() { two_pass_.release_memory(); }
  /// Where the perturbed values of a parameter were stored in the last step.
  Placement placement(const at::Tensor& param) const { return two_pass_.memory().placement(param); }

  /// One step. The closure computes the loss and calls backward(); it runs twice, at w and at w + e (once, at w or at
  /// w + e, on plain steps and in methods of one pass). What it changes beside gradients and the attached model's
  /// buffers changes twice: a state that is carried over must be computed from the one before the step, and stored
  /// after it.
  ///
  /// Without a closure, after a forward pass and backward(): the operators of that pass, which were recorded as they
  /// ran, are called again at w + e. The result is the same as that of step(closure), bit for bit.
  ///
  /// Returns the loss of the first pass: at w, or at w + e in methods whose only pass is there (undefined if backward()
  /// was called on something else than single elements). Gradients are cleared before each pass; whether the closure
  /// does so too does not matter. If the closure or a hook throws, weights and buffers are as before the step and the
  /// exception passes through. Errors without a closure, with nothing changed: passes that cannot be repeated, with the
  /// reason.
  at::Tensor step(Closure closure = nullptr) override {
    if (!closure) return step_of_recording();
    return step(std::move(closure), nullptr);
  }
  /// The same for a method that evaluates the loss at other weights: `loss` computes that of the closure's batch
  /// without backward(), which saves a backward pass each time.
  at::Tensor step(Closure closure, Closure loss) {
    TORCH_CHECK(closure, "steppe: step(closure, loss) needs a closure that computes the loss and calls backward()");
    return step_over({std::move(closure), std::move(loss), ascend_on_, 1, {}});
  }
  /// One step over a batch in `parts` (micro-batches): part(i) computes the loss of part i and calls backward(). With
  /// Perturb::Each, every part is perturbed along its own gradient, and the mean of the second gradients makes the step
  /// (m-sharpness, arXiv 2010.01412); with Perturb::Together, all along the mean gradient. The result is that of as
  /// many processes with one part each. The loss is the mean.
  ///
  ///     sam.step(4, [&](int64_t i) { auto loss = criterion(model->forward(x[i]), y[i]); loss.backward(); return loss;
  ///     });
  ///
  /// Memory with Each: one more gradient, the sum. The report's norms are those of the first part. Errors: parts below
  /// 1; those of exchange() with Each, and methods that decide after pass 1.
  at::Tensor step(int64_t parts, std::function<at::Tensor(int64_t)> part) {
    TORCH_CHECK(parts >= 1 && part, "steppe: step(parts, part) needs at least one part and a function, got ", parts,
                " parts");
    const Closure only = [&part] { return part(0); };
    return step_over({only, {}, ascend_on_, parts, part});
  }

  /// Optional first call of a two-phase step, before pass 1: lets pass 2 draw the same random numbers.
  void remember_rng() {
    two_pass_.check_between_steps("remember_rng()");
    const StepPlan step_plan = plan();
    recorder_.stop("remember_rng()");
    two_pass_.remember_rng(step_plan);
  }

  /// Two-phase use, after loss.backward() at w: moves the weights to w + e and clears the gradients.
  ///
  /// Returns whether a second pass is needed; it is not on plain steps, or without gradients. The loss, if given, goes
  /// into the report.
  ///
  ///     loss.backward();  if (sam.ascend()) { /* forward and backward again */ }  sam.descend();
  bool ascend(const at::Tensor& loss = {}) {
    TORCH_CHECK(detail::StepsWithoutClosure<Base>::value,
                "steppe: this base optimizer evaluates its closure several times a step; use step(closure)");
    TORCH_CHECK(!ascend_on_,
                "steppe: ascend_on() was called, which is for step(closure); between ascend() and descend() "
                "make the passes with the batches that you want");
    two_pass_.check_can_ascend();
    return together([&] {
      const StepPlan step_plan = plan();
      recorder_.stop("ascend()");
      return two_pass_.ascend(step_plan, loss);
    });
  }

  /// Two-phase use, after pass 2: restores the weights and makes the base optimizer's step.
  void descend(const at::Tensor& perturbed_loss = {}) {
    std::vector<std::vector<at::Tensor>> params;
    for (const auto& group : this->param_groups()) params.push_back(group.params());
    // The optimizer may have been moved since ascend().
    if (StepPlan* pending = two_pass_.pending_plan()) plan_parts_over_all_groups(*pending);
    try {
      together([&] {
        two_pass_.descend(params, perturbed_loss);
        Base::step(nullptr);
      });
    } catch (const step::Overflow&) {
      ++skipped_steps_;
      return;
    }
    count_step();
  }

  /// Gives up a two-phase step: weights and first gradients are restored.
  void cancel() { two_pass_.cancel(); }

  /// Writes the base's state, then one more sub-archive "steppe": counters, schedules, the hyper-parameters of every
  /// group, and which parameters are excluded. Perturbations and functions (hooks, custom schedules) are not included.
  /// A plain Base can load it.
  void save(torch::serialize::OutputArchive& archive) const override {
    two_pass_.check_between_steps("save()");
    Base::save(archive);
    torch::serialize::OutputArchive own(archive.compilation_unit());
    OwnCheckpoint written = own_checkpoint();
    while (written.groups.size() < this->param_groups().size()) written.groups.push_back(defaults_of_groups_);
    written.write(own);
    archive.write("steppe", own);
  }

  /// Restores what save() wrote, learning rates included (LibTorch before 2.6 does not restore them). A checkpoint of a
  /// plain Base, or of another method over the same Base, restores the base's state and leaves the settings as they
  /// are; the method's own state from earlier steps is dropped.
  ///
  /// Errors leave everything as it was: another base, another number of groups or parameters, damaged archives.
  void load(torch::serialize::InputArchive& archive) override {
    two_pass_.check_between_steps("load()");
    sync_groups();
    torch::serialize::InputArchive own;
    const bool is_ours = archive.try_read("steppe", own);
    OwnCheckpoint read = own_checkpoint();
    if (is_ours) read.read(own);
    for (size_t k = 0; k < read.groups.size(); ++k) read.groups[k].bind(this->param_groups()[k].params());
    step::load_base(*this, archive, [&] { Base::load(archive); });
    if (is_ours) return take(std::move(read));
    for (Group& group : groups_) group.forget();
    if constexpr (detail::HasForget<Policy>::value) policy_.forget();
  }

 private:
  using Group = GroupSettings<Ascent, Descent>;
  using OwnCheckpoint = step::OptimizerCheckpoint<Group, Policy>;

  /// In loops without a closure pass 1 is over when step() is called.
  static constexpr bool kReplays = detail::StepsWithoutClosure<Base>::value && !detail::is_ahead_of_pass_one<Ascent>;

  struct Misused {};
  explicit SharpnessAware(Misused);

  void initialize() {
    defaults_of_groups_.fill_rho();
    sync_groups();
    for (Group& group : groups_) group.validate();
    two_pass_.note_gradients(all_params());
    if constexpr (detail::HasDefaultInterval<Descent>::value && !detail::HasDecides<Policy>::value)
      steps_.every(Descent::default_interval);
    if constexpr (kReplays) recorder_.start(all_params(), two_pass_.buffers(), false);
  }

  std::vector<at::Tensor> all_params() const { return detail::params_of(*this); }

  void use_loss_scale(std::shared_ptr<step::LossScale> scale) override {
    TORCH_CHECK(detail::StepsWithoutClosure<Base>::value || !scale->enabled,
                "steppe: a GradScaler skips steps that overflow, but ", c10::demangle(typeid(Base).name()),
                " evaluates its closure several times a step and moves the weights between; train it in float32 or "
                "bfloat16, without a scaler");
    two_pass_.check_between_steps("scaler()");
    two_pass_.reduction().scale(std::move(scale));
  }

  /// Informs the other processes of an exception, so that they do not wait for this one.
  template <class Body>
  auto together(Body&& body) -> decltype(body()) {
    try {
      return body();
    } catch (const step::Overflow&) {
      throw;  // all processes have it
    } catch (const std::exception& error) {
      two_pass_.reduction().abandon(error.what());
      throw;
    } catch (...) {
      two_pass_.reduction().abandon("an exception that is no std::exception");
      throw;
    }
  }

  at::Tensor step_over(const TwoPass::Passes& passes) {
    two_pass_.check_between_steps("step()");
    at::Tensor value;
    try {
      value = together([&] {
        const StepPlan step_plan = plan();
        recorder_.stop("step(closure)");
        return Base::step([&] { return two_pass_.evaluate(passes, step_plan); });
      });
    } catch (const step::Overflow& overflow) {
      ++skipped_steps_;
      return overflow.loss;
    }
    count_step();
    return value;
  }

  at::Tensor step_of_recording() {
    TORCH_CHECK(
        detail::StepsWithoutClosure<Base>::value, "steppe: step() of ", c10::demangle(typeid(Base).name()),
        " needs a closure that computes the loss and calls backward(), because it evaluates that several times a "
        "step: optimizer.step([&] { ...; return loss; })");
    TORCH_CHECK(!detail::is_ahead_of_pass_one<Ascent>,
                "steppe: step() was called without a closure, but this method moves the weights before its only pass, "
                "which the loop has made by then; use step(closure), or call ascend() before the forward pass and "
                "descend() after backward()");
    TORCH_CHECK(!ascend_on_, "steppe: ascend_on() was called, which is for step(closure); give step() the closure");
    two_pass_.check_between_steps("step()");
    at::Tensor loss;
    try {
      together([&] { loss = rest_of_recording(); });
    } catch (const step::Overflow& overflow) {
      ++skipped_steps_;
      recorder_.step_done();
      return overflow.loss;
    }
    count_step();
    recorder_.step_done();
    return loss;
  }

  at::Tensor rest_of_recording() {
    const StepPlan step_plan = plan();
    TORCH_CHECK(!captured_, "steppe: a CUDA graph cannot capture step() without a closure; use step(closure)");
    recorder_.learn(all_params(), two_pass_.buffers());
    const step::Unobserved unobserved;
    recorder_.check_started();
    // The loss of the loop's backward() is multiplied by the scaler.
    const auto true_loss = [this](const at::Tensor& of_backward) {
      return two_pass_.reduction().true_loss(of_backward);
    };
    at::Tensor loss;
    if (TwoPass::perturbs(step_plan)) {
      const step::RecordedPasses passes = recorder_.prepare();
      loss = two_pass_.evaluate_rest(
          true_loss(passes.loss), [&] { return true_loss(passes.again(two_pass_.replays_rng())); }, step_plan);
    } else {
      loss = two_pass_.evaluate_rest(true_loss(recorder_.loss()), nullptr, step_plan);
    }
    Base::step(nullptr);
    return loss;
  }

  /// New groups, however they were added, inherit the defaults.
  void sync_groups() {
    const size_t count = this->param_groups().size();
    TORCH_CHECK(groups_.size() <= count, "steppe: the optimizer had ", groups_.size(), " parameter groups and now has ",
                count, "; groups cannot be removed");
    while (groups_.size() < count) groups_.push_back(defaults_of_groups_);
  }

  Group& group_at(size_t index) {
    sync_groups();
    TORCH_CHECK(index < groups_.size(), "steppe: there is no parameter group ", index, "; the optimizer has ",
                groups_.size());
    return groups_[index];
  }

  /// The plan of this step, checked.
  StepPlan plan() {
    sync_groups();
    StepPlan step_plan;
    detail::validate(policy_);
    if constexpr (detail::HasBegin<Policy>::value) policy_.begin();
    step_plan.perturb = steps_.perturbs(step_) && detail::perturbs(policy_, step_);
    step_plan.step = step_;
    step_plan.ascents = ascents_;
    step_plan.ascent_keeps_state = detail::keeps_state<Ascent> && !detail::is_ahead_of_pass_one<Ascent>;
    detail::ParameterCheck check;
    for (size_t k = 0; k < groups_.size(); ++k) {
      Group& group = groups_[k];
      const auto& base_group = this->param_groups()[k];
      group.validate();
      check.group(base_group.params());
      group.bind(base_group.params());
      detail::for_each_link(group.ascent, [&](auto& link) {
        if constexpr (detail::LooksAt<std::remove_reference_t<decltype(link)>, Base>::value) {
          static_assert(!detail::DividesState<Base>::value,
                        "steppe: MSAM asks the base optimizer for its momentum, of which ShardedState holds a part on "
                        "each process; use the base itself, or another method");
          link.look_at(static_cast<Base&>(*this), k);
        }
      });
      GroupPlan& group_plan = step_plan.add_group(base_group, direction_of(group.ascent, step_), group.options);
      if constexpr (detail::NeedsRawAscent<Descent>::value)
        TORCH_CHECK(kernels::exact::are_equal(group.options.p(), 2.0),
                    "steppe: this method needs the gradient as the ascent's direction, which it is for p = 2 only; got "
                    "p = ",
                    group.options.p());
      if constexpr (detail::HasAgreesWith<Descent>::value)
        TORCH_CHECK(group.descent.agrees_with(groups_.front().descent),
                    "steppe: the descents of parameter groups 0 and ", k,
                    " differ in settings that belong to the whole step; set descent(i) of every group alike");
      if constexpr (detail::HasAfterStep<Descent>::value)
        if (group.descent.needs_lr()) base_group.options().get_lr();  // throws if the base has none
      if (step_plan.perturb) group_plan.rho *= detail::radius(policy_, step_);
      if constexpr (!std::is_same_v<Descent, descent::PerturbedGradient> && !detail::IsTogether<Descent>::value)
        group_plan.descent = std::ref(group.descent);
      group_plan.needs_first_gradient = Descent::needs_first_gradient;
      step_plan.descent_mixes = step_plan.descent_mixes || descent_mixes(group.descent);
    }
    plan_parts_over_all_groups(step_plan);
    step_plan.for_each_param([this](const at::Tensor& param) { two_pass_.clipping().check(param); });
    captured_ = TwoPass::is_captured(step_plan);
    if (captured_) check_capture();
    return step_plan;
  }

  static bool descent_mixes(const Descent& descent) {
    if constexpr (std::is_same_v<Descent, descent::PerturbedGradient>)
      return false;
    else if constexpr (std::is_same_v<Descent, descent::Centralize>)
      return descent.center_descent();
    else
      return true;
  }

  void plan_parts_over_all_groups(StepPlan& step_plan) {
    if constexpr (detail::HasDecides<Policy>::value)
      step_plan.decides = [this](double squared_norm) { return policy_.decides(step_, squared_norm); };
    if constexpr (detail::IsTogether<Descent>::value) {
      step_plan.needs_first_squares = detail::NeedsFirstSquares<Descent>::value;
      step_plan.sees_all_gradients = detail::SeesAllGradients<Descent>::value;
      step_plan.descent = [this](std::vector<descent::GroupGradients>& groups, const descent::StepGradients& seen) {
        std::vector<Descent*> of_groups;
        for (Group& group : groups_) of_groups.push_back(&group.descent);
        Descent::descend(of_groups, groups, seen);
      };
    }
    if constexpr (detail::is_ahead_of_pass_one<Ascent>)
      step_plan.learns = [this](const std::vector<std::vector<at::Tensor>>& gradients) {
        const c10::NoGradGuard no_grad;
        for (size_t k = 0; k < groups_.size(); ++k)
          detail::for_each_link(groups_[k].ascent, [&](auto& link) {
            if constexpr (detail::is_ahead<std::remove_reference_t<decltype(link)>>)
              link.learn(this->param_groups()[k].params(), gradients[k]);
          });
      };
  }

  /// Throws on what changes from step to step, since a CUDA graph repeats the captured step.
  void check_capture() {
    if constexpr (detail::ChecksCapture<Base>::value)
      Base::check_capture();
    else
      TORCH_CHECK(!detail::counts_on_the_host<Base>, "steppe: a step of ", c10::demangle(typeid(Base).name()),
                  " depends on the number of steps, which a CUDA graph would not count; capture one of SGD or RMSprop, "
                  "or of steppe::Fused<Adam> or Fused<AdamW>");
    if constexpr (!std::is_same_v<Policy, policy::EveryStep>)
      TORCH_CHECK(false, "steppe: a step is captured into a CUDA graph, but the policy ",
                  c10::demangle(typeid(Policy).name()), " chooses step by step; capture a method without one");
    TORCH_CHECK(!(detail::keeps_state<Ascent> || detail::KeepsState<Descent>::value) && ascents_ == 1,
                "steppe: a step is captured into a CUDA graph, but this method keeps state from step to step, or makes "
                "several ascents, which a graph cannot repeat; capture SAM, ASAM, ZSharp or GCSAM");
    TORCH_CHECK(steps_.settled(step_),
                "steppe: a step is captured into a CUDA graph, which would perturb always or never, but every(k), "
                "from_step(n) or last(share, total) depend on the step; set every(1) and from_step(0), and choose in "
                "the program");
    for (size_t k = 0; k < groups_.size(); ++k) {
      bool varies = groups_[k].options.rho() > 0.0 &&
                    (groups_[k].options.rho_schedule().varies() || groups_[k].options.radius().varies());
      detail::for_each_link(groups_[k].ascent, [&](const auto& link) { varies = varies || detail::varies(link); });
      TORCH_CHECK(
          !varies,
          "steppe: a step is captured into a CUDA graph, which keeps its rho and percentile, but parameter group ", k,
          " has a schedule of them; set constants, and capture again when they change");
    }
  }

  /// After the base's step. A captured step has not run; replays of its graph are not counted.
  void count_step() {
    if constexpr (detail::HasAfterStep<Descent>::value)
      for (size_t k = 0; k < groups_.size(); ++k)
        if (groups_[k].descent.needs_lr()) groups_[k].descent.after_step(this->param_groups()[k].options().get_lr());
    if (captured_) return;
    for (Group& group : groups_) group.commit();
    if constexpr (detail::HasCommit<Policy>::value) policy_.commit();
    ++step_;
    if (report().perturbed) ++perturbed_steps_;
    two_pass_.notes().perturbed_share(static_cast<double>(perturbed_steps_) / static_cast<double>(step_));
    if constexpr (detail::HasFirstStep<Policy>::value) tail_watch_.see(step_, policy_.first_step(), policy_.total());
  }

  OwnCheckpoint own_checkpoint() const {
    OwnCheckpoint own;
    own.base = checkpoint::name_of<typename detail::CheckpointBase<Base>::Type>();
    own.step = step_;
    own.non_finite_steps = two_pass_.notes().non_finite_steps().value();
    own.non_finite_clips = two_pass_.notes().non_finite_clips().value();
    own.clipping = two_pass_.clipping();
    own.steps = steps_;
    own.perturbed_steps = perturbed_steps_;
    own.skipped_steps = skipped_steps_;
    own.ascents = ascents_;
    own.policy = policy_;
    own.groups = std::vector<Group>(groups_);  // constructed, not assigned: a link may be a const callable
    for (size_t k = 0; k < own.groups.size(); ++k) own.groups[k].bind(this->param_groups()[k].params());
    own.note_participation(*this, two_pass_.participation());
    return own;
  }

  void take(OwnCheckpoint own) {
    groups_.swap(own.groups);
    steps_ = own.steps;
    step_ = own.step;
    perturbed_steps_ = own.perturbed_steps;
    skipped_steps_ = own.skipped_steps;
    ascents_ = own.ascents;
    policy_ = own.policy;
    two_pass_.notes().non_finite_steps().set(own.non_finite_steps);
    two_pass_.notes().non_finite_clips().set(own.non_finite_clips);
    two_pass_.clipping() = own.clipping;
    own.restore_participation(*this, two_pass_.participation());
  }

  TwoPass two_pass_;
  step::Recorder recorder_;
  Group defaults_of_groups_;
  std::vector<Group> groups_;
  schedule::Steps steps_;
  Policy policy_;
  Closure ascend_on_;
  int64_t ascents_ = 1;
  int64_t step_ = 0, perturbed_steps_ = 0, skipped_steps_ = 0;
  step::TailWatch tail_watch_;
  bool captured_ = false;  ///< this step is being captured into a CUDA graph
};

STEPPE_NAMESPACE_END
