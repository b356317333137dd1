// The interface of the block of threads that runs a kernel.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

// Kernels are function objects over a block. The tests run the same code on the host, with a block of their own.
#ifdef __CUDACC__
#define STEPPE_DEVICE __device__
#define STEPPE_UNROLL _Pragma("unroll")
#define STEPPE_KEEP_ROLLED _Pragma("unroll 1")
#else
#define STEPPE_DEVICE
#define STEPPE_UNROLL
#define STEPPE_KEEP_ROLLED
#endif

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Threads that execute together.
constexpr int kWarp = 32;

/// Tells the compiler what always holds, which saves it registers.
STEPPE_DEVICE inline void assume([[maybe_unused]] bool holds) {
#ifdef __CUDA_ARCH__
  __builtin_assume(holds);
#endif
}

/// The same pointer, which the compiler then knows to be one to global memory: other loads and stores are dearer.
template <class T>
STEPPE_DEVICE T* global(T* memory) {
#ifdef __CUDA_ARCH__
  __builtin_assume(__isGlobal(memory));
#endif
  return memory;
}

#ifdef __CUDACC__
class DeviceBlock {
 public:
  __device__ int index() const { return static_cast<int>(blockIdx.x); }
  __device__ int count() const { return static_cast<int>(gridDim.x); }
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  /// Waits for every thread of the block.
  __device__ void sync() const { __syncthreads(); }
  /// The value of the thread that is `by` further in the same group of `width` (a power of two, at most kWarp); its own
  /// where there is none. All threads of a warp take part.
  __device__ double shuffle_down(double value, int by, int width) const {
    return __shfl_down_sync(0xffffffffu, value, static_cast<unsigned>(by), width);
  }
  /// A memory fence: threads that see this thread's later writes see its earlier ones too.
  __device__ void publish() const { __threadfence(); }
  /// Atomic addition in shared or global memory; returns the old value.
  template <class Count>
  __device__ Count add(Count* to, Count value) const {
    return atomicAdd(to, value);
  }
};
#endif

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
