// A whole ascent as a sequence of launches.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/kernels/cuda/move.hpp>
#include <steppe/kernels/cuda/plan.hpp>
#include <steppe/kernels/cuda/sweep.hpp>
#include <steppe/kernels/cuda/threshold.hpp>
#include <steppe/kernels/cuda/work.hpp>

namespace steppe::kernels::cuda {

/// Two launches for SAM, GCSAM and ASAM, six with a filter, one more where rows are longer than a chunk.
///
/// `launch` runs a kernel with kThreads threads in each block, in at most as many blocks as there are chunks; one
/// launch begins when the one before has ended.
template <int kThreads, class Launch>
void launch_ascent(const Plan& plan, const Work& work, Launch&& launch) {
  launch(Sweep<kThreads>(work, Stage::First));
  if (plan.cuts_rows()) launch(Sweep<kThreads>(work, Stage::CutRows));
  if (plan.histograms() > 0) {
    for (int level = 0; level < kLevels; ++level) launch(Threshold<kThreads>(work, level));
    launch(Sweep<kThreads>(work, Stage::Filtered));
  }
  launch(Move<kThreads>(work));
}

}  // namespace steppe::kernels::cuda
