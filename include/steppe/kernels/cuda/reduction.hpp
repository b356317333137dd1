// Sums over the threads of a block and over the chunks of a layer, always in the same order.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cuda/block.hpp>
#include <steppe/kernels/cuda/work.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Shared memory of a sum over kThreads threads, a power of two.
template <int kThreads>
struct Sums {
  Part parts[kThreads];
  bool last;
};

/// The sum of what every thread has; every thread gets it.
template <int kThreads, class Block>
STEPPE_DEVICE Part sum_over_threads(const Block& block, Sums<kThreads>& shared, const Part& mine) {
  const int thread = block.thread();
  shared.parts[thread] = mine;
  block.sync();
  STEPPE_KEEP_ROLLED
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) shared.parts[thread] += shared.parts[thread + half];
    block.sync();
  }
  const Part total = shared.parts[0];
  block.sync();  // before the memory is used again
  return total;
}

/// The sum over a layer's chunks.
template <int kThreads, class Block>
STEPPE_DEVICE Part sum_over_chunks(const Block& block, Sums<kThreads>& shared, const Part* parts, int64_t chunks) {
  Part mine;
  for (int64_t i = block.thread(); i < chunks; i += kThreads) mine += parts[i];
  return sum_over_threads(block, shared, mine);
}

/// True for the last of `count` blocks that arrive here, which sees what the others have written before. The ticket is
/// reset to zero.
///
/// Called after a barrier; since then only thread 0 may have written. What other threads wrote before the barrier is
/// published by thread 0's fence too, and what thread 0 sees after its second one, the others see after the barrier.
template <int kThreads, class Block>
STEPPE_DEVICE bool is_last(const Block& block, Sums<kThreads>& shared, unsigned* ticket, int64_t count) {
  if (block.thread() == 0) {
    block.publish();
    shared.last = block.add(ticket, 1u) + 1u == static_cast<unsigned>(count);
    block.publish();
    if (shared.last) *ticket = 0;
  }
  block.sync();
  return shared.last;
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
