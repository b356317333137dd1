// How long a CUDA device takes for what is enqueued on its default stream.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

namespace benchmarks {

/// Times by events, after the device's L2 cache has been overwritten. What the host enqueues while that lasts is
/// hidden, as in a training step, where the host runs ahead; of calls that take longer the host's time is measured.
/// Errors: std::runtime_error with CUDA's message.
class DeviceClock {
 public:
  DeviceClock();
  DeviceClock(const DeviceClock&) = delete;
  DeviceClock& operator=(const DeviceClock&) = delete;
  ~DeviceClock();

  /// How long overwriting the cache takes.
  double hidden_seconds() const { return hidden_seconds_; }

  void start();
  void stop();
  /// Between start() and stop(). Waits for the device.
  double seconds();

 private:
  void* first_ = nullptr;
  void* last_ = nullptr;
  void* flushed_ = nullptr;
  size_t bytes_ = 0;
  double hidden_seconds_ = 0.0;
};

}  // namespace benchmarks
