// Running statistics of normalization layers that were not attached.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/step/buffers_guard.hpp>
#include <steppe/step/observed.hpp>
#include <steppe/step/operator_observer.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Copies the running mean and variance that an operator is about to update, and restores them at its end: BatchNorm of
/// layers that were not attached does not see pass 2, or a measurement. A layer's counter of batches is no argument of
/// any operator and is not guarded.
class StatisticsGuard : public OperatorObserver {
 public:
  /// `guarded`: those that other code restores.
  explicit StatisticsGuard(const std::vector<at::Tensor>& guarded = {}) {
    for (const at::Tensor& buffer : guarded) guarded_.insert(buffer.unsafeGetTensorImpl());
  }

  /// Whether statistics were updated that nothing else guards.
  bool saw_any() const { return !guards_.empty(); }

  std::unique_ptr<at::ObserverContext> starts(const at::RecordFunction& event) override {
    const Arguments& places = arguments_of(event);
    if (places.statistics.empty()) return nullptr;
    const auto given = inputs_of(event);
    if (places.training >= 0) {
      const c10::IValue& training = given[static_cast<size_t>(places.training)];
      if (training.isBool() && !training.toBool()) return nullptr;
    }
    const at::DisableRecordFunctionGuard unseen;
    for (const size_t i : places.statistics)
      if (given[i].isTensor() && given[i].toTensor().defined() &&
          guarded_.count(given[i].toTensor().unsafeGetTensorImpl()) == 0 &&
          seen_.emplace(given[i].toTensor().unsafeGetTensorImpl(), given[i].toTensor()).second)
        guards_.push_back(std::make_unique<BuffersGuard>(std::vector<at::Tensor>{given[i].toTensor()}));
    return nullptr;
  }

 private:
  struct Arguments {
    std::vector<size_t> statistics;
    int64_t training = -1;  ///< the argument that decides whether they are updated instead of read
  };

  static const Arguments& arguments_of(const at::RecordFunction& event) {
    static thread_local std::unordered_map<const char*, Arguments> known;
    static const Arguments none;
    const auto found = known.find(event.name());
    if (found != known.end()) return found->second;
    const auto name = event.operator_name();
    if (!name) return none;
    const auto op = c10::Dispatcher::singleton().findSchema(*name);
    if (!op) return none;
    Arguments places;
    const auto& arguments = op->schema().arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string& what = arguments[i].name();
      if (names_a_statistic(what)) places.statistics.push_back(i);
      if (names_the_training_flag(what)) places.training = static_cast<int64_t>(i);
    }
    return known.emplace(event.name(), std::move(places)).first->second;
  }

  std::unordered_set<const c10::TensorImpl*> guarded_;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> seen_;
  std::vector<std::unique_ptr<BuffersGuard>> guards_;
};

}  // namespace step
STEPPE_NAMESPACE_END
