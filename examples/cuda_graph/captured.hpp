// Work on a CUDA stream, captured into a graph once and repeated from there.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/cuda.h>

#include <exception>

/// Runs the work on the stream. Before a capture this allocates the memory that is allocated once: momentum, buffers.
template <class Work>
void run_on(c10::cuda::CUDAStream stream, Work&& work) {
  torch::cuda::synchronize();
  {
    const c10::cuda::CUDAStreamGuard here(stream);
    work();
  }
  torch::cuda::synchronize();
}

/// The work as a graph, which reads and writes the same memory whenever it is replayed. The constructor
/// runs nothing of it. Tensors that the work made hold what the last replay left in them.
class Captured {
 public:
  template <class Work>
  Captured(c10::cuda::CUDAStream stream, Work&& work) : stream_(stream) {
    run_on(stream_, [&] {
      graph_.capture_begin();
      try {
        work();
      } catch (...) {
        end_after_an_error();
        throw;
      }
      graph_.capture_end();
    });
  }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;

  void replay() {
    run_on(stream_, [&] { graph_.replay(); });
  }

 private:
  /// CUDA's error about an aborted capture matters less than its cause.
  void end_after_an_error() {
    try {
      graph_.capture_end();
    } catch (const std::exception&) {
      return;
    }
  }

  c10::cuda::CUDAStream stream_;
  at::cuda::CUDAGraph graph_;
};
