// The entry to the CUDA kernels: plain declarations, which need neither CUDA's headers nor a tensor library.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/kernels/cuda/plan.hpp>
#include <steppe/kernels/cuda/work.hpp>
#include <steppe/version.hpp>

struct CUstream_st;

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// What CUDA's headers call cudaStream_t.
using Stream = CUstream_st*;

/// Enqueues an ascent on the stream of the current device; returns null, or CUDA's error message.
///
/// `table` is a copy of the plan's table on the device, `scratch` are scratch_bytes(plan) bytes there. It does not wait
/// and allocates no memory. Equal inputs give equal bits.
const char* ascend(const Plan& plan, const void* table, void* scratch, const Results& results, Stream stream);

/// Whether work on the stream is being captured into a graph.
bool is_capturing(Stream stream);

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
