// The models and buffers that an optimizer knows, and the statistics that passes through others update.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

#include <steppe/parameter_roles.hpp>
#include <steppe/step/operator_observer.hpp>
#include <steppe/step/statistics_guard.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

using ImplSet = std::unordered_set<const c10::TensorImpl*>;

inline ImplSet impls(const std::vector<at::Tensor>& tensors) {
  ImplSet set;
  for (const at::Tensor& tensor : tensors) set.insert(tensor.unsafeGetTensorImpl());
  return set;
}

/// The models and buffers that pass 2 must leave as pass 1 left them; each call adds to those before it.
class Attached {
  struct Known {
    bool any = false;                       ///< something was attached
    std::optional<bool> others_statistics;  ///< passes update statistics that were not attached, if that is known
  };

 public:
  void add(const torch::nn::Module& model) {
    add(model.buffers());
    append(params_, model.parameters());
    const ImplSet gains = impls(steppe::norm_gains(model));
    norm_gains_.insert(gains.begin(), gains.end());
  }
  /// Of a TorchScript module or of no module at all.
  void add(const std::vector<at::Tensor>& buffers) {
    append(buffers_, buffers);
    known_ = std::make_shared<Known>();
    known_->any = true;
  }

  const std::vector<at::Tensor>& buffers() const { return buffers_; }
  bool is_norm_gain(const at::Tensor& param) const { return norm_gains_.count(param.unsafeGetTensorImpl()) != 0; }

  /// The models' parameters that are not among these.
  std::vector<at::Tensor> params_beside(const std::vector<at::Tensor>& own) const {
    std::vector<at::Tensor> others;
    if (params_.empty()) return others;
    const ImplSet known = impls(own);
    for (const at::Tensor& param : params_)
      if (known.count(param.unsafeGetTensorImpl()) == 0) others.push_back(param);
    return others;
  }

  /// While it lives, running statistics of layers that were not attached are kept from a pass. Where something was
  /// attached this stops once a pass has updated none: observing costs 0.2 us per operator.
  class OthersStatistics {
   public:
    explicit OthersStatistics(const Attached& attached) : known_(attached.known_) {
      if (!known_->others_statistics.value_or(true)) return;
      guard_ = std::make_shared<StatisticsGuard>(attached.buffers_);
      observation_.emplace(guard_);
    }
    ~OthersStatistics() {
      if (guard_ && known_->any)
        known_->others_statistics = known_->others_statistics.value_or(false) || guard_->saw_any();
    }
    OthersStatistics(const OthersStatistics&) = delete;
    OthersStatistics& operator=(const OthersStatistics&) = delete;

   private:
    std::shared_ptr<Known> known_;  // the optimizer may be moved meanwhile
    std::shared_ptr<StatisticsGuard> guard_;
    std::optional<Observation> observation_;
  };

 private:
  static void append(std::vector<at::Tensor>& all, const std::vector<at::Tensor>& more) {
    ImplSet known = impls(all);
    for (const at::Tensor& tensor : more)
      if (tensor.defined() && known.insert(tensor.unsafeGetTensorImpl()).second) all.push_back(tensor);
  }

  std::vector<at::Tensor> buffers_, params_;
  ImplSet norm_gains_;
  std::shared_ptr<Known> known_ = std::make_shared<Known>();
};

/// The parameters that are perturbed.
class Participation {
 public:
  /// These are neither perturbed nor counted in the norm, beside those excluded before.
  void exclude(const std::vector<at::Tensor>& params) {
    for (const at::Tensor& param : params) excluded_.insert(param.unsafeGetTensorImpl());
  }
  /// Nothing but these, whatever was excluded before; parameters added later are not.
  void only(const std::vector<at::Tensor>& params) {
    excluded_.clear();
    only_ = impls(params);
  }
  /// Excludes these and no others, whatever was set before.
  void exclude_exactly(const std::vector<at::Tensor>& params) {
    only_.reset();
    excluded_ = impls(params);
  }
  bool includes(const at::Tensor& param) const {
    return excluded_.count(param.unsafeGetTensorImpl()) == 0 &&
           (!only_ || only_->count(param.unsafeGetTensorImpl()) != 0);
  }

 private:
  ImplSet excluded_;
  std::optional<ImplSet> only_;
};

}  // namespace step
STEPPE_NAMESPACE_END
