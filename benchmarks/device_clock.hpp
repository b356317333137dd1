// How long a CUDA device takes for what is enqueued on its default stream.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

namespace benchmarks {

/// Times by events, so that the host's launches are hidden as in a training step, where the host runs ahead. Before
/// each start the device's L2 cache is overwritten. Errors: std::runtime_error with CUDA's message.
class DeviceClock {
 public:
  DeviceClock();
  DeviceClock(const DeviceClock&) = delete;
  DeviceClock& operator=(const DeviceClock&) = delete;
  ~DeviceClock();

  void start();
  void stop();
  /// Between start() and stop(). Waits for the device.
  double seconds();

 private:
  void* first_ = nullptr;
  void* last_ = nullptr;
  void* flushed_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace benchmarks
