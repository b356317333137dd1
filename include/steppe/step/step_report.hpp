// The report of a step while it is made, and counts of norms that were not finite.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <utility>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/perturbation.hpp>
#include <steppe/report.hpp>
#include <steppe/step/deferred_count.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Tensors stay on the device; only reading a count waits for it.
class StepReport {
 public:
  /// The last step, or what is known so far of the step at hand.
  const Report& seen() const { return report_; }
  /// Steps that were not perturbed because the gradient norm was not finite.
  ///@{
  DeferredCount& non_finite_steps() { return non_finite_steps_; }
  const DeferredCount& non_finite_steps() const { return non_finite_steps_; }
  ///@}
  /// Steps that were not clipped because the norm of the final gradients was not finite.
  ///@{
  DeferredCount& non_finite_clips() { return non_finite_clips_; }
  const DeferredCount& non_finite_clips() const { return non_finite_clips_; }
  ///@}

  /// Empties the report, except for the share of perturbed steps.
  void begin() {
    Report next;
    next.perturbed_share = report_.perturbed_share;
    report_ = std::move(next);
  }

  /// L(w), if it is a single element.
  void loss(const at::Tensor& loss) {
    if (loss.defined() && loss.numel() == 1) report_.loss = loss.detach();
  }

  /// L(w + e), if it is a single element, and with it the sharpness.
  void perturbed_loss(const at::Tensor& loss) {
    if (!loss.defined() || loss.numel() != 1) return;
    const c10::NoGradGuard no_grad;
    report_.perturbed_loss = loss.detach();
    if (report_.loss.defined()) report_.sharpness = report_.perturbed_loss - report_.loss;
  }

  /// Marks the step as perturbed, also on a process without gradients where others have some.
  void perturbed() { report_.perturbed = true; }

  /// `scale`: a factor of the gradients that the ascent has seen.
  void ascent(const AscentResult& seen, const std::vector<AscentGroup>& groups, double scale) {
    report_.perturbed = true;
    const c10::NoGradGuard no_grad;
    const bool is_scaled = !kernels::exact::are_equal(scale, 1.0);
    report_.gradient_norm = is_scaled ? seen.gradient_norm / scale : seen.gradient_norm;
    report_.perturbation_norm = seen.perturbation_norm;
    report_.kept_share = seen.kept_share;
    report_.layer_gradient_norm = is_scaled ? seen.layer_gradient_norm / scale : seen.layer_gradient_norm;
    report_.layer_perturbation_norm = seen.layer_perturbation_norm;
    report_.layer_kept_share = seen.layer_kept_share;
    for (const AscentGroup& group : groups)
      if (group.rho > 0.0 || group.in_norm)
        report_.layers.insert(report_.layers.end(), group.params.begin(), group.params.end());
  }

  /// Means of several parts; undefined ones where a part had none.
  void losses(const at::Tensor& loss, const at::Tensor& perturbed_loss) {
    const c10::NoGradGuard no_grad;
    report_.loss = loss;
    report_.perturbed_loss = perturbed_loss;
    report_.sharpness = loss.defined() && perturbed_loss.defined() ? perturbed_loss - loss : at::Tensor();
  }

  /// The norm of the final gradients before clipping.
  void unclipped_norm(const at::Tensor& norm) {
    report_.unclipped_norm = norm;
    if (norm.defined()) non_finite_clips_.add(norm.isfinite().logical_not());
  }

  /// The share of perturbed steps among all so far.
  void perturbed_share(double share) { report_.perturbed_share = share; }

 private:
  Report report_;
  DeferredCount non_finite_steps_, non_finite_clips_;
};

}  // namespace step
STEPPE_NAMESPACE_END
