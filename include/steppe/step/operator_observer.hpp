// Lets several observers see the operators of a thread by one callback.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/record_function.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Is called for each operator that LibTorch's dispatcher calls, nested ones included.
class OperatorObserver {
 public:
  OperatorObserver() = default;
  OperatorObserver(const OperatorObserver&) = delete;
  OperatorObserver& operator=(const OperatorObserver&) = delete;
  virtual ~OperatorObserver() = default;

  /// The returned context is passed to ended(), which is not called for null.
  virtual std::unique_ptr<at::ObserverContext> starts(const at::RecordFunction& event) = 0;
  virtual void ended(at::ObserverContext&) {}
};

/// Lets an observer see the operators of the calling thread, until the end of its scope.
class Observation {
 public:
  explicit Observation(std::shared_ptr<OperatorObserver> observer) : observer_(std::move(observer)) {
    OfThread* thread = of_thread();
    if (thread == nullptr) return;
    thread->forget_gone();
    thread->observers.push_back(observer_);
    if (thread->handle == 0)
      thread->handle = at::addThreadLocalCallback(
          at::RecordFunctionCallback(&starts, &ends).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  }
  /// Destroyed on another thread, its entry in the observed thread is removed when that one observes again.
  ~Observation() {
    observer_.reset();
    if (OfThread* thread = of_thread()) thread->forget_gone();
  }
  Observation(const Observation&) = delete;
  Observation& operator=(const Observation&) = delete;

 private:
  struct OfThread {
    std::vector<std::weak_ptr<OperatorObserver>> observers;
    at::CallbackHandle handle = 0;

    void forget_gone() {
      observers.erase(
          std::remove_if(observers.begin(), observers.end(), [](const auto& each) { return each.expired(); }),
          observers.end());
      if (!observers.empty() || handle == 0) return;
      at::removeCallback(handle);
      handle = 0;
    }
  };

  struct Started {
    std::shared_ptr<OperatorObserver> observer;
    std::unique_ptr<at::ObserverContext> context;
  };
  /// Of several observers, such as that of a step within a step, the inner one is nearer to the operator.
  struct AllStarted : at::ObserverContext {
    std::vector<Started> all;
  };

  /// Null when the thread is ending.
  static OfThread* of_thread() {
    struct Owner {
      ~Owner() { ended() = true; }
      static bool& ended() {
        static thread_local bool flag = false;
        return flag;
      }
      OfThread thread;
    };
    static thread_local Owner owner;
    return Owner::ended() ? nullptr : &owner.thread;
  }

  static std::unique_ptr<at::ObserverContext> starts(const at::RecordFunction& event) {
    OfThread* thread = of_thread();
    std::unique_ptr<AllStarted> started;
    for (size_t i = 0; thread != nullptr && i < thread->observers.size(); ++i)
      if (std::shared_ptr<OperatorObserver> observer = thread->observers[i].lock())
        if (auto context = observer->starts(event)) {
          if (!started) started = std::make_unique<AllStarted>();
          started->all.push_back({std::move(observer), std::move(context)});
        }
    return started;
  }
  static void ends(const at::RecordFunction&, at::ObserverContext* context) {
    if (context == nullptr) return;
    auto& all = static_cast<AllStarted*>(context)->all;
    for (; !all.empty(); all.pop_back()) all.back().observer->ended(*all.back().context);
  }

  std::shared_ptr<OperatorObserver> observer_;
};

}  // namespace step
STEPPE_NAMESPACE_END
