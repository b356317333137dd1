// The CUDA kernels, compiled by every target that links steppe::cuda.
// SPDX-License-Identifier: MIT
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

#include <steppe/kernels/cuda/ascent.hpp>
#include <steppe/kernels/cuda/cuda.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {
namespace {

constexpr int kThreads = 256, kBlocksPerProcessor = 8;

template <class Kernel>
__global__ void __launch_bounds__(kThreads, Kernel::kResident) run(const Kernel kernel) {
  __shared__ alignas(16) unsigned char memory[sizeof(typename Kernel::Shared)];
  kernel(DeviceBlock(), *reinterpret_cast<typename Kernel::Shared*>(memory));
}

/// The error is that of the launch: cudaGetLastError() may return one that the program has left behind.
template <class Kernel>
cudaError_t launch(const Kernel& kernel, int64_t blocks, Stream stream) {
  void* arguments[] = {const_cast<Kernel*>(&kernel)};
  return cudaLaunchKernel(reinterpret_cast<const void*>(&run<Kernel>), dim3(static_cast<unsigned>(blocks)),
                          dim3(kThreads), arguments, 0, stream);
}

int64_t processors_of_current_device() {
  int device = 0, count = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return std::max(count, 1);
}

}  // namespace

// Weak: a program may link them twice, by itself and in an object library, and either copy will do.
__attribute__((weak)) const char* ascend(const Plan& plan, const void* table, void* scratch, const Results& results, Stream stream) {
  const int64_t blocks = std::min(plan.chunks(), processors_of_current_device() * kBlocksPerProcessor);
  cudaError_t error = cudaSuccess;
  launch_ascent<kThreads>(plan, work_of(plan, table, scratch, results), [&](const auto& kernel) {
    if (error == cudaSuccess) error = launch(kernel, blocks, stream);
  });
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // what is reported here is not to be found by the program's next check
  return cudaGetErrorString(error);
}

__attribute__((weak)) bool is_capturing(Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone;
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
