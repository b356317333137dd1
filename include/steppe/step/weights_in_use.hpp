// Which weights are perturbed at this moment, by which thread.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// While it lives no other thread may perturb these weights, or others in the same memory: each would restore what it
/// found, and lose the other's changes. The same thread may, as a measurement within a step does.
class WeightsInUse {
 public:
  WeightsInUse() = default;
  WeightsInUse(const WeightsInUse&) = delete;
  WeightsInUse& operator=(const WeightsInUse&) = delete;
  ~WeightsInUse() { release(); }

  /// Errors: another thread uses one of them.
  void add(const std::vector<at::Tensor>& params) {
    const std::lock_guard<std::mutex> lock(mutex());
    check(params);
    memory_.clear();
    for (const at::Tensor& param : params) {
      memory_.push_back(param.unsafeGetTensorImpl());  // its memory may be different while it is perturbed
      memory_.push_back(param.storage().unsafeGetStorageImpl());
    }
    thread_ = std::this_thread::get_id();
    all().push_back(this);
  }

  void release() {
    const std::lock_guard<std::mutex> lock(mutex());
    all().erase(std::remove(all().begin(), all().end(), this), all().end());
  }

 private:
  void check(const std::vector<at::Tensor>& params) const {
    for (const WeightsInUse* other : all()) {
      if (other == this || other->thread_ == std::this_thread::get_id()) continue;
      const std::unordered_set<const void*> used(other->memory_.begin(), other->memory_.end());
      for (const at::Tensor& param : params)
        TORCH_CHECK(
            used.count(param.unsafeGetTensorImpl()) == 0 && used.count(param.storage().unsafeGetStorageImpl()) == 0,
            "steppe: a parameter of shape ", param.sizes(),
            " is perturbed by another thread at this moment; two optimizers cannot train the same weights at "
            "once: let each thread train a copy, or one after the other");
    }
  }

  static std::mutex& mutex() {
    static std::mutex* of_all = new std::mutex;  // outlives optimizers of static lifetime
    return *of_all;
  }
  static std::vector<const WeightsInUse*>& all() {
    static auto* of_all = new std::vector<const WeightsInUse*>;
    return *of_all;
  }

  std::vector<const void*> memory_;
  std::thread::id thread_;
};

}  // namespace step
STEPPE_NAMESPACE_END
