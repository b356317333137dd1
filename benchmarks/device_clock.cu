// SPDX-License-Identifier: MIT
#include "device_clock.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace benchmarks {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

}  // namespace

DeviceClock::DeviceClock() {
  int device = 0, cache = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device));
  // More than the cache, so that it takes as long as the host needs to enqueue an ascent.
  bytes_ = std::max(static_cast<size_t>(cache) * 4, size_t{1} << 28);
  check(cudaMalloc(&flushed_, bytes_));
  for (void** event : {&first_, &last_}) {
    cudaEvent_t made = nullptr;
    check(cudaEventCreate(&made));
    *event = made;
  }
  for (int i = 0; i < 2; ++i) {  // the first time is longer
    check(cudaEventRecord(event_of(first_), nullptr));
    check(cudaMemsetAsync(flushed_, 0, bytes_, nullptr));
    stop();
    hidden_seconds_ = seconds();
  }
}

DeviceClock::~DeviceClock() {
  if (first_ != nullptr) cudaEventDestroy(event_of(first_));
  if (last_ != nullptr) cudaEventDestroy(event_of(last_));
  cudaFree(flushed_);
}

void DeviceClock::start() {
  check(cudaMemsetAsync(flushed_, 0, bytes_, nullptr));
  check(cudaEventRecord(event_of(first_), nullptr));
}

void DeviceClock::stop() { check(cudaEventRecord(event_of(last_), nullptr)); }

double DeviceClock::seconds() {
  check(cudaEventSynchronize(event_of(last_)));
  float milliseconds = 0.0f;
  check(cudaEventElapsedTime(&milliseconds, event_of(first_), event_of(last_)));
  return static_cast<double>(milliseconds) * 1e-3;
}

}  // namespace benchmarks
