// The only entry to the kernels: chooses the implementation of an ascent for the given tensors.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <vector>

#include <steppe/kernels/dispatch_task.hpp>
#include <steppe/version.hpp>

#if defined(STEPPE_COMPILED) && defined(STEPPE_WITH_CUDA) && !defined(STEPPE_COMPILED_WITH_CUDA)
#error "steppe: link steppe::compiled_cuda instead of steppe::compiled and steppe::cuda"
#endif

STEPPE_NAMESPACE_BEGIN
namespace kernels {

/// Whether work on the device's current stream is being captured into a graph.
bool is_capturing(at::Device device);

/// What the kernels keep between ascents. An ascent over the same tensors allocates nothing, if their memory needs no
/// copy and nothing else holds the last result.
class Workspace {
 public:
  /// Errors: STEPPE_CPU names instructions that the machine does not have.
  Workspace();
  ~Workspace();
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;

  /// w + e of every task goes to its destination; see reference::ascend for the definition. Sets task.moved.
  AscentResult ascend(std::vector<AscentTask>& tasks);

  int64_t bytes() const;
  void release();

 private:
  class Kernels;
  std::unique_ptr<Kernels> kernels_;
};

/// g minus its mean per output row, in place; for tensors of at least `min_dim` (and two) dimensions.
void centralize_(at::Tensor& gradient, int64_t min_dim);

}  // namespace kernels
STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/kernels/dispatch.ipp>
#endif
