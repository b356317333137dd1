// Losses scaled up for backward passes in 16 bits, and optimizers that step with unscaled gradients.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/base/skippable.hpp>
#include <steppe/step/checkpoint.hpp>
#include <steppe/step/loss_scale.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// What a training loop needs beside the optimizer: scaling, autocast, schedules, averages.
namespace training {

/// Dynamic loss scaling (arXiv 1710.03740), as Python's torch.amp.GradScaler: gradients that float16 would round to
/// zero are computed from `factor * loss` and divided by the factor before anything reads them. A step whose gradients
/// overflow is skipped, and the factor is reduced; after `growth_interval` steps without an overflow it grows:
///
///     factor <- factor * backoff_factor   after an overflow (0.5)
///     factor <- factor * growth_factor    after growth_interval steps without one (2, 2000)
///
///     steppe::training::GradScaler scaler;
///     sam.scaler(scaler);                                              // once
///     sam.step([&] { auto loss = ...; scaler.scale(loss).backward(); return loss; });
///     scaler.update();                                                 // after each step
///
/// In a loop without a closure: `scaler.scale(loss).backward(); scaler.step(optimizer); scaler.update();`, the
/// optimizer being one of LibTorch's or of steppe's. Copies share one state. Several optimizers may share a scaler, and
/// each of them skips its own steps; update() comes after the last of them.
///
/// The factor is held on the host: a step waits once for the device, to know whether it overflowed. A step of
/// steppe::Fused by itself does not, as the device skips it; the next scale() waits, for the next forward pass as well.
/// bfloat16 has the range of float32 and needs no scaler.
class GradScaler {
 public:
  /// Errors: a factor that is not finite or not over 0.
  explicit GradScaler(double factor = 65536.0) { this->factor(factor); }

  /// Multiplies the factor after growth_interval updates without an overflow; over 1.
  ///@{
  double growth_factor() const { return scale_->growth_factor; }
  GradScaler& growth_factor(double value) {
    TORCH_CHECK(std::isfinite(value) && value > 1.0, "steppe: GradScaler().growth_factor() must be over 1, got ",
                value);
    scale_->growth_factor = value;
    return *this;
  }
  ///@}
  /// Multiplies the factor after an overflow; between 0 and 1.
  ///@{
  double backoff_factor() const { return scale_->backoff_factor; }
  GradScaler& backoff_factor(double value) {
    TORCH_CHECK(value > 0.0 && value < 1.0, "steppe: GradScaler().backoff_factor() must be between 0 and 1, got ",
                value);
    scale_->backoff_factor = value;
    return *this;
  }
  ///@}
  /// Updates without an overflow after which the factor grows; at least 1.
  ///@{
  int64_t growth_interval() const { return scale_->growth_interval; }
  GradScaler& growth_interval(int64_t value) {
    TORCH_CHECK(value >= 1, "steppe: GradScaler().growth_interval() must be at least 1, got ", value);
    scale_->growth_interval = value;
    return *this;
  }
  ///@}
  /// Whether it scales; if not, losses and gradients are left as they are.
  ///@{
  bool enabled() const { return scale_->enabled; }
  GradScaler& enabled(bool value) {
    scale_->enabled = value;
    return *this;
  }
  ///@}

  /// The factor that losses are multiplied by; 1 if off.
  double factor() const { return scale_->enabled ? scale_->factor() : 1.0; }
  /// Sets the factor, between update() and the next scale().
  GradScaler& factor(double value) {
    TORCH_CHECK(std::isfinite(value) && value > 0.0, "steppe: a GradScaler's factor must be finite and over 0, got ",
                value);
    scale_->set(value, scale_->growth_tracker());
    return *this;
  }
  /// Updates without an overflow since the factor last changed.
  int64_t growth_tracker() const { return scale_->growth_tracker(); }

  /// factor * loss, in float32 where the loss has 16 bits and one element.
  at::Tensor scale(const at::Tensor& loss) const {
    if (!scale_->enabled) return loss;
    scale_->use();
    const bool is_reduced = loss.scalar_type() == at::kHalf || loss.scalar_type() == at::kBFloat16;
    return (is_reduced && loss.numel() == 1 ? loss.to(at::kFloat) : loss) * scale_->factor();
  }

  /// Divides the gradients of an optimizer of LibTorch by the factor before the step, so that they can be clipped or
  /// read; step() then does not do it again. Errors: an optimizer of steppe, which has its own clip_grad_norm() and
  /// before_descent(); a second call for one step.
  void unscale(torch::optim::Optimizer& optimizer) {
    TORCH_CHECK(dynamic_cast<step::UsesLossScale*>(&optimizer) == nullptr,
                "steppe: GradScaler::unscale() is for optimizers of one pass; this one unscales by itself, in step(): "
                "clip with its clip_grad_norm() or in before_descent()");
    if (!scale_->enabled) return;
    Seen& seen = seen_of_->operator[](&optimizer);
    scale_->check_updated(seen.stepped_at);
    scale_->check_used();
    TORCH_CHECK(seen.unscaled_at != scale_->updates(),
                "steppe: GradScaler::unscale() was called twice for one step of an optimizer");
    std::vector<at::Tensor> gradients;
    for (const auto& group : optimizer.param_groups())
      for (const at::Tensor& param : group.params())
        if (param.grad().defined()) gradients.push_back(param.grad());
    seen.overflowed = scale_->unscale(gradients);
    if (!seen.overflowed.defined()) seen.overflowed = at::zeros({}, at::kBool);
    // A step that the device can skip need not be waited for.
    if (dynamic_cast<base::Skippable*>(&optimizer) != nullptr) {
      seen.unscaled_at = scale_->note_later(seen.overflowed);
    } else {
      seen.overflowed = seen.overflowed.cpu();
      seen.unscaled_at = scale_->note(seen.overflowed.item<bool>());
    }
  }

  /// The optimizer's step() with unscaled gradients, or no step if they are not finite. For loops without a closure;
  /// with one, call the optimizer's own step(closure) after its scaler(*this).
  ///
  /// Returns what the optimizer's step() returns; an undefined tensor where an optimizer of LibTorch makes none.
  at::Tensor step(torch::optim::Optimizer& optimizer) {
    if (auto* own = dynamic_cast<step::UsesLossScale*>(&optimizer)) {
      own->use_loss_scale(scale_);
      return optimizer.step();
    }
    if (!scale_->enabled) return optimizer.step();
    Seen& seen = seen_of_->operator[](&optimizer);
    if (seen.unscaled_at != scale_->updates()) unscale(optimizer);
    scale_->check_updated(seen.stepped_at);
    seen.stepped_at = scale_->updates();
    if (auto* skippable = dynamic_cast<base::Skippable*>(&optimizer)) {
      skippable->skip_where(seen.overflowed.to(at::kFloat));
      return optimizer.step();
    }
    return seen.overflowed.item<bool>() ? at::Tensor() : optimizer.step();
  }

  /// Called after the steps of an iteration: sets the factor for the next one. Errors: no step was made since the last
  /// call.
  void update() {
    if (scale_->enabled) scale_->update();
  }

  /// Writes the factor, how it changes, and the count since its last change.
  void save(torch::serialize::OutputArchive& archive) const {
    checkpoint::Writer write(archive);
    write("grad_scaler_format", kFormat);
    write("factor", scale_->factor());
    write("growth_factor", scale_->growth_factor);
    write("backoff_factor", scale_->backoff_factor);
    write("growth_interval", scale_->growth_interval);
    write("growth_tracker", scale_->growth_tracker());
  }
  /// Reads what save() wrote. Errors, before anything has changed: what no save() of this class wrote.
  void load(torch::serialize::InputArchive& archive) {
    checkpoint::Reader read(archive);
    int64_t format = 0;
    read("grad_scaler_format", format);
    TORCH_CHECK(format == kFormat, "steppe: the checkpoint of a GradScaler has format ", format,
                ", this version reads ", kFormat);
    GradScaler found;
    double value = 0.0;
    int64_t count = 0;
    read("factor", value), found.factor(value);
    read("growth_factor", value), found.growth_factor(value);
    read("backoff_factor", value), found.backoff_factor(value);
    read("growth_interval", count), found.growth_interval(count);
    read("growth_tracker", count);
    TORCH_CHECK(count >= 0, "steppe: the checkpoint of a GradScaler counts ", count, " updates; it is damaged");
    growth_factor(found.growth_factor()).backoff_factor(found.backoff_factor());
    growth_interval(found.growth_interval());
    scale_->set(found.factor(), count);
  }

  /// For torch::save() and torch::load().
  ///@{
  friend torch::serialize::OutputArchive& operator<<(torch::serialize::OutputArchive& archive,
                                                     const GradScaler& scaler) {
    scaler.save(archive);
    return archive;
  }
  friend torch::serialize::InputArchive& operator>>(torch::serialize::InputArchive& archive, GradScaler& scaler) {
    scaler.load(archive);
    return archive;
  }
  ///@}

  /// The state that copies share, for optimizers that unscale by themselves.
  const std::shared_ptr<step::LossScale>& shared() const { return scale_; }

 private:
  static constexpr int64_t kFormat = 1;

  struct Seen {
    int64_t stepped_at = -1, unscaled_at = -1;  ///< after so many updates
    at::Tensor overflowed;                      ///< of the gradients that were unscaled last
  };

  std::shared_ptr<step::LossScale> scale_ = std::make_shared<step::LossScale>();
  std::shared_ptr<std::unordered_map<const torch::optim::Optimizer*, Seen>> seen_of_ =
      std::make_shared<std::unordered_map<const torch::optim::Optimizer*, Seen>>();
};

}  // namespace training
STEPPE_NAMESPACE_END
