// A whole ascent as a sequence of launches.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/kernels/cuda/move.hpp>
#include <steppe/kernels/cuda/plan.hpp>
#include <steppe/kernels/cuda/sample.hpp>
#include <steppe/kernels/cuda/sweep.hpp>
#include <steppe/kernels/cuda/thread_sum.hpp>
#include <steppe/kernels/cuda/threshold.hpp>
#include <steppe/kernels/cuda/variant.hpp>
#include <steppe/kernels/cuda/work.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// Two launches for SAM, GCSAM and ASAM, six with a filter, one more where a filtered layer is large enough to have a
/// window, and one where rows are longer than a chunk.
///
/// Bytes per float32 component: SAM reads g twice and w once and writes w + e, 16. Where its window is valid, the
/// filter lists about a tenth of the components of normal gradients, writes them once and reads them four times, 18 in
/// all (22 where directions are scaled too); where it is not, every level and the norm read g, 32.
///
/// `launch` runs a kernel with kThreads threads in each block, in at most as many blocks as there are chunks; a launch
/// begins when the previous one has ended. `Sum`: how a thread adds.
template <int kThreads, class Sum = DeviceSum, class Launch>
void launch_ascent(const Plan& plan, const Work& work, Launch&& launch) {
  if (plan.lists() > 0) launch(Sample<kThreads>(work));
  with_variant<Sum>(plan.needs(), [&](auto variant) {
    using Variant = decltype(variant);
    launch(Sweep<kThreads, Variant>(work, Stage::First));
    if constexpr (Variant::kCentralizes)
      if (plan.cuts_rows()) launch(Sweep<kThreads, Variant>(work, Stage::CutRows));
    if constexpr (Variant::kFilters) {
      if (plan.histograms() > 0) {
        for (int level = 0; level < kLevels; ++level) launch(Threshold<kThreads, Variant>(work, level));
        launch(Sweep<kThreads, Variant>(work, Stage::Filtered));
      }
    }
    launch(Move<kThreads, Variant>(work));
  });
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
