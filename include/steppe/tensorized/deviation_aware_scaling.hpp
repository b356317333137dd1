// DeviationAwareScaling<Base>: rescales the cores of tensorized layers as SAM would, from one gradient per step.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/kernels/dispatch.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/schedule.hpp>
#include <steppe/step/checkpoint.hpp>
#include <steppe/tensorized/norm_deviation.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// Over which gradients the scaling is normalized.
enum class GradientNorm : int64_t {
  PerLayer,  ///< u = (sum_k |g_k|^2)^(-1/2) over the cores of the group
  Global,    ///< over the cores of all groups that are scaled
};

/// The scaling of one group of cores, kept beside LibTorch's own options for the group.
class ScalingOptions {
 public:
  /// Strength, 0.001 to 0.1 as a rule, up to 2 for LoRA-like fine-tuning. 0: the group's parameters are not cores.
  TORCH_ARG(double, alpha) = 0.01;
  /// alpha as a function of the step; takes its place when set, except that a group with alpha 0 keeps 0.
  TORCH_ARG(schedule::Schedule, alpha_schedule);
  /// 2 divides by |G_k|^2, as the paper does; 1 by |G_k|, as the released code does.
  TORCH_ARG(int64_t, norm_power) = 2;
  /// The gradients that u is computed over.
  TORCH_ARG(GradientNorm, gradient_norm) = GradientNorm::PerLayer;

 public:
  /// alpha at a step, of the schedule if there is one. Throws c10::Error if it is negative or not finite.
  double alpha_at(int64_t step, double lr) const {
    const double value = alpha_schedule_ && !kernels::exact::is_zero(alpha_) ? alpha_schedule_(step, lr) : alpha_;
    TORCH_CHECK(std::isfinite(value) && value >= 0.0, "steppe: alpha must be finite and at least 0, got ", value,
                " at step ", step);
    return value;
  }

  /// Throws c10::Error if alpha is negative or not finite, or norm_power is not 1 or 2.
  void validate() const {
    TORCH_CHECK(std::isfinite(alpha_) && alpha_ >= 0.0, "steppe: alpha must be finite and at least 0, got ", alpha_);
    TORCH_CHECK(norm_power_ == 1 || norm_power_ == 2,
                "steppe: norm_power must be 2 (the paper's rule) or 1 (the "
                "released code's), got ",
                norm_power_);
  }

  /// What a checkpoint has of it.
  template <class Fields>
  void fields(Fields& field) {
    field("alpha", alpha_);
    field("alpha_schedule", alpha_schedule_);
    field("norm_power", norm_power_);
    field("gradient_norm", gradient_norm_);
  }
};

/// Any LibTorch optimizer with deviation-aware scaling (DAS, arXiv 2508.10435): every parameter group whose alpha is
/// not 0 holds the cores G_1..G_K of one tensorized layer, and before the base optimizer's own step with the unchanged
/// gradients g_k
///
///     G_k <- (1 + lambda_k) G_k,  lambda_k = lr * alpha * u * (|g_k|^2 - gbar) / |G_k|^2,
///     gbar = mean_k |g_k|^2,      u = (K gbar)^(-1/2)
///
/// which is what SAM does to the cores' norms, from one gradient. It is a Base: schedulers, groups, save and load work
/// as before. Cost: one read of the cores and gradients and one write of the cores. Cores without a gradient count with
/// |g_k| = 0; where a gradient or a core is zero or not finite its layer or core is not scaled.
///
///     steppe::DAS<torch::optim::Adam> das(groups_of_cores, torch::optim::AdamOptions(1e-3),
///                                         steppe::ScalingOptions().alpha(0.01));
///     das.scaling(0).alpha(0.0);  // group 0 holds ordinary parameters
///
/// It composes: SAM<DAS<torch::optim::SGD>> scales by the gradients at w + e. Base must evaluate its closure once a
/// step.
template <class Base>
class DeviationAwareScaling : public Base {
  static_assert(
      std::is_base_of_v<torch::optim::Optimizer, Base>,
      "steppe: Base must be an optimizer that derives from torch::optim::Optimizer, such as torch::optim::SGD");

 public:
  /// Clears the gradients, computes the loss, calls its backward() and returns it.
  using Closure = torch::optim::Optimizer::LossClosure;

  /// The parameters are the cores of one layer. Errors: options out of range.
  template <class BaseOptions>
  DeviationAwareScaling(std::vector<at::Tensor> cores, const BaseOptions& base_options, ScalingOptions scaling = {})
      : Base(std::move(cores), base_options), defaults_(std::move(scaling)) {
    sync_groups();
    validate();
  }

  /// Each group holds the cores of one layer; all start with the same scaling, which scaling(k) changes.
  template <class BaseOptions>
  DeviationAwareScaling(std::vector<torch::optim::OptimizerParamGroup> groups, const BaseOptions& base_options,
                        ScalingOptions scaling = {})
      : Base(std::move(groups), base_options), defaults_(std::move(scaling)) {
    sync_groups();
    validate();
  }

  /// The scaling of a parameter group, to be read or changed. Throws c10::Error if there is no such group.
  ScalingOptions& scaling(size_t group = 0) {
    sync_groups();
    TORCH_CHECK(group < scaling_.size(), "steppe: there is no parameter group ", group, "; the optimizer has ",
                scaling_.size());
    return scaling_[group];
  }

  /// Steps that have scaled so far.
  int64_t scaling_steps() const { return step_; }

  /// Scales the cores by their gradients (with a closure, by those it computes), then makes the base's step. Returns
  /// what that returns. Throws c10::Error if options are out of range, or the base evaluates its closure twice.
  at::Tensor step(Closure closure = nullptr) override {
    sync_groups();
    validate();
    for (size_t k = 0; k < scaling_.size(); ++k) check_capture(k);
    if (!closure) {
      scale();
      at::Tensor loss = Base::step(nullptr);
      ++step_;
      return loss;
    }
    bool scaled = false;
    at::Tensor loss = Base::step([&] {
      TORCH_CHECK(!scaled,
                  "steppe: DeviationAwareScaling needs a base optimizer that evaluates its closure once a step; "
                  "LBFGS does not");
      at::Tensor evaluated = closure();
      scale();
      scaled = true;
      return evaluated;
    });
    ++step_;
    return loss;
  }

  /// The base's state, then one more sub-archive "steppe_scaling", which a plain Base ignores.
  void save(torch::serialize::OutputArchive& archive) const override {
    Base::save(archive);
    torch::serialize::OutputArchive own(archive.compilation_unit());
    checkpoint::Writer write(own);
    write("step", step_);
    std::vector<ScalingOptions> scaling = scaling_;
    scaling.resize(this->param_groups().size(), defaults_);
    write("groups", static_cast<int64_t>(scaling.size()));
    for (size_t k = 0; k < scaling.size(); ++k) write(std::to_string(k), scaling[k]);
    archive.write("steppe_scaling", own);
  }

  /// Restores what save() wrote; a plain Base's checkpoint leaves the scaling as constructed. Errors leave the scaling
  /// as it was: another number of groups, damaged archives.
  void load(torch::serialize::InputArchive& archive) override {
    sync_groups();
    torch::serialize::InputArchive own;
    std::vector<ScalingOptions> scaling = scaling_;
    int64_t step = step_;
    if (archive.try_read("steppe_scaling", own)) {
      checkpoint::Reader read(own);
      int64_t count = 0;
      read("groups", count);
      TORCH_CHECK(count == static_cast<int64_t>(scaling.size()), "steppe: the checkpoint has ", count,
                  " parameter groups, the optimizer has ", scaling.size());
      read("step", step);
      for (size_t k = 0; k < scaling.size(); ++k) read(std::to_string(k), scaling[k]);
    }
    Base::load(archive);
    scaling_.swap(scaling);
    step_ = step;
  }

 private:
  /// New groups, however they were added, inherit the defaults.
  void sync_groups() { scaling_.resize(this->param_groups().size(), defaults_); }

  void validate() const {
    for (const ScalingOptions& each : scaling_) each.validate();
  }

  /// A CUDA graph repeats the step that was captured.
  void check_capture(size_t group) const {
    if (!scaling_[group].alpha_schedule().varies()) return;
    for (const at::Tensor& core : this->param_groups()[group].params())
      TORCH_CHECK(!kernels::is_capturing(core.device()),
                  "steppe: a step is captured into a CUDA graph, which keeps its alpha, but parameter group ", group,
                  " has a schedule of it; set a constant, and capture anew where it changes");
  }

  void scale() {
    const c10::NoGradGuard no_grad;
    std::vector<tensorized::NormDeviation> seen(scaling_.size());
    std::vector<double> strength(scaling_.size(), 0.0);
    at::Tensor all_squares;
    for (size_t k = 0; k < scaling_.size(); ++k) {
      const auto& group = this->param_groups()[k];
      const double lr = group.options().get_lr();
      strength[k] = lr * scaling_[k].alpha_at(step_, lr);
      if (kernels::exact::is_zero(strength[k]) || group.params().empty()) continue;
      seen[k] = tensorized::norm_deviation(group.params());
      const at::Tensor squares = seen[k].gradient_squares.sum();
      all_squares = all_squares.defined() ? all_squares + squares.to(all_squares.device()) : squares;
    }
    for (size_t k = 0; k < scaling_.size(); ++k)
      if (seen[k].core_squares.defined()) scale_group(k, strength[k], seen[k], all_squares);
  }

  void scale_group(size_t group, double strength, const tensorized::NormDeviation& seen,
                   const at::Tensor& all_squares) {
    const bool global = scaling_[group].gradient_norm() == GradientNorm::Global;
    const at::Tensor squares = global ? all_squares.to(seen.gradient_squares.device()) : seen.gradient_squares.sum();
    const at::Tensor size = scaling_[group].norm_power() == 2 ? seen.core_squares : seen.core_squares.sqrt();
    at::Tensor lambda = (seen.gradient_squares - seen.gradient_squares.mean()) * squares.rsqrt() / size * strength;
    lambda = lambda.masked_fill(lambda.isfinite().logical_not(), 0.0);
    auto& cores = this->param_groups()[group].params();
    // w + lambda w, and not (1 + lambda) w: a small lambda would be lost in the sum.
    for (size_t i = 0; i < cores.size(); ++i) {
      at::Tensor core = cores[i].detach();
      core.addcmul_(core, lambda[static_cast<int64_t>(i)].to(core.scalar_type()));
    }
  }

  ScalingOptions defaults_;
  std::vector<ScalingOptions> scaling_;
  int64_t step_ = 0;
};

STEPPE_NAMESPACE_END
