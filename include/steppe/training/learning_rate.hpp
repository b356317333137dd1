// A learning-rate scheduler that can be saved.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/schedulers/lr_scheduler.h>
#include <torch/serialize/archive.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <steppe/step/checkpoint.hpp>
#include <steppe/training/learning_rate_factor.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace training {

/// A learning-rate scheduler of LibTorch's kind that can be saved: each parameter group's own learning rate, as it is
/// at construction, is multiplied by the same factor.
///
///     lr_k(t) = lr_k factor(t),  t = 0, 1, ... steps of the optimizer
///
///     steppe::training::LearningRate rate(optimizer, steppe::training::wsd(steps, 0.3, warmup_steps, 0.0));
///     optimizer.step(closure), rate.step();   // in the loop
///     torch::save(rate, "rate.pt");
///
/// LibTorch's schedulers set nothing before their first step(). This one sets the learning rates of t = 0 when it is
/// constructed, so that the first step of a warm-up is a small one, and step() advances to the next t. Past T the last
/// value stays.
///
/// The optimizer (any of LibTorch's, any of steppe's) must outlive it and have all its groups: a group that is added
/// later is an error of step(). One schedule per optimizer: a second one would multiply what the first has set.
///
/// Errors: options without get_lr() and set_lr() (LibTorch's all have them); in step(), another number of groups.
class LearningRate final : public torch::optim::LRScheduler {
 public:
  /// Sets the learning rates of t = 0.
  LearningRate(torch::optim::Optimizer& optimizer, LearningRateFactor factor)
      : torch::optim::LRScheduler(optimizer), factor_(std::move(factor)), base_(get_current_lrs()) {
    set_rates_of(0);
  }

  /// t: how often step() was called, before a checkpoint too.
  int64_t steps_made() const { return static_cast<int64_t>(step_count_) - 1; }
  /// The current factor of the learning rates.
  double factor() const { return factor_(steps_made()); }
  /// The learning rates that are multiplied, one per group.
  const std::vector<double>& base_learning_rates() const { return base_; }

  /// Writes t, the factor's function, and the learning rates that it multiplies.
  void save(torch::serialize::OutputArchive& archive) const {
    checkpoint::Writer write(archive);
    write("learning_rate_format", kFormat);
    write("steps_made", steps_made());
    write("factor", factor_);
    write("groups", static_cast<int64_t>(base_.size()));
    for (size_t k = 0; k < base_.size(); ++k) write(base_name(k), base_[k]);
  }

  /// Resumes where save() was called, bit for bit, and sets the optimizer's learning rates, whatever they were: before
  /// or after the optimizer itself is loaded. The checkpoint's function replaces the one given to the constructor.
  ///
  /// Errors, before anything has changed: what no save() of this class wrote, another number of groups.
  void load(torch::serialize::InputArchive& archive) {
    checkpoint::Reader read(archive);
    int64_t format = 0, steps = 0, groups = 0;
    read("learning_rate_format", format);
    TORCH_CHECK(format == kFormat, "steppe: the checkpoint of a learning-rate schedule has format ", format,
                ", this version reads ", kFormat);
    read("steps_made", steps);
    TORCH_CHECK(steps >= 0 && steps < kLastCount, "steppe: the checkpoint of a learning-rate schedule counts ", steps,
                " steps; it is damaged");
    LearningRateFactor factor = factor_;
    read("factor", factor);
    read("groups", groups);
    const size_t present = get_current_lrs().size();
    TORCH_CHECK(groups == static_cast<int64_t>(present), "steppe: the checkpoint of a learning-rate schedule has ",
                groups, " parameter groups, the optimizer has ", present);
    std::vector<double> base(present);
    for (size_t k = 0; k < base.size(); ++k) {
      read(base_name(k), base[k]);
      TORCH_CHECK(std::isfinite(base[k]), "steppe: the checkpoint of a learning-rate schedule has the learning rate ",
                  base[k], " for parameter group ", k, "; it is damaged");
    }
    factor_ = std::move(factor);
    base_ = std::move(base);
    set_rates_of(steps);
  }

  /// For torch::save() and torch::load().
  ///@{
  friend torch::serialize::OutputArchive& operator<<(torch::serialize::OutputArchive& archive,
                                                     const LearningRate& rate) {
    rate.save(archive);
    return archive;
  }
  friend torch::serialize::InputArchive& operator>>(torch::serialize::InputArchive& archive, LearningRate& rate) {
    rate.load(archive);
    return archive;
  }
  ///@}

 private:
  static constexpr int64_t kFormat = 1;
  static constexpr int64_t kLastCount = (std::numeric_limits<unsigned>::max)();

  static std::string base_name(size_t group) { return "base/" + std::to_string(group); }

  /// step() is LibTorch's and not virtual: it sets what get_lrs() returns for step_count_, and increments that.
  void set_rates_of(int64_t t) {
    step_count_ = static_cast<unsigned>(t);
    step();
  }

  std::vector<double> get_lrs() override {
    const size_t present = get_current_lrs().size();
    TORCH_CHECK(present == base_.size(), "steppe: the learning-rate schedule was made for ", base_.size(),
                " parameter groups, the optimizer has ", present, ": make it when all groups are there");
    if (static_cast<int64_t>(step_count_) == kLastCount) --step_count_;  // it would wrap to 0, and training start again
    std::vector<double> rates = base_;
    const double factor = factor_(static_cast<int64_t>(step_count_));
    for (double& rate : rates) rate *= factor;
    return rates;
  }

  LearningRateFactor factor_;
  std::vector<double> base_;
};

}  // namespace training
STEPPE_NAMESPACE_END
