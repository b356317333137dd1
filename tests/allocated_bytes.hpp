// Bytes that LibTorch allocates on this thread.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>

namespace allocated_bytes {

/// LibTorch's versions differ in the type of the totals.
template <class Member>
class Count;
template <class Total>
class Count<void (c10::MemoryReportingInfoBase::*)(void*, int64_t, Total, Total, c10::Device)>
    : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, Total, Total, c10::Device) override {
    now += size;
    peak = std::max(peak, now);
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t now = 0, peak = 0;  ///< relative to the beginning of the scope
};

/// Counts in its scope.
class Scope {
 public:
  int64_t now() const { return count_->now; }
  int64_t peak() const { return count_->peak; }

 private:
  using Counted = Count<decltype(&c10::MemoryReportingInfoBase::reportMemoryUsage)>;

  std::shared_ptr<Counted> count_ = std::make_shared<Counted>();
  c10::DebugInfoGuard guard_{c10::DebugInfoKind::PROFILER_STATE, count_};
};

inline int64_t peak_of(const std::function<void()>& work) {
  const Scope scope;
  work();
  return scope.peak();
}

}  // namespace allocated_bytes
