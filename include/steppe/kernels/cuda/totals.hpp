// The global norms, the factor of every layer, and the numbers of the report.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include <steppe/kernels/cuda/reduction.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// A norm so small that the factor is beyond this counts as zero.
constexpr double kLargestFactor = 3.4028234663852886e38;

STEPPE_DEVICE inline bool is_finite(double x) { return fabs(x) <= 1.7976931348623157e308; }

/// rho / N, or 0 where nothing may move.
STEPPE_DEVICE inline double factor_of(const Entry& entry, const State& state, double direction, double raw) {
  if (!(is_finite(direction) && is_finite(raw)) || entry.rho == 0.0) return 0.0;
  double divisor = entry.norm == Norm::Direction ? direction : raw;
  if (entry.norm == Norm::PerTensor && state.filters) divisor = sqrt(state.measure) + 1e-12;
  const double factor = entry.rho / divisor;
  return divisor > 0.0 && factor <= kLargestFactor ? factor : 0.0;
}

/// The number of components that a filter kept; all without one.
STEPPE_DEVICE inline int64_t kept_of(const Entry& entry, const State& state) {
  return state.filters ? state.above : entry.cut.size;
}

/// Run by one block, when every layer is measured.
template <int kThreads, class Block>
STEPPE_DEVICE void find_totals(const Block& block, Sums<kThreads>& shared, const Work& work) {
  Part mine;
  STEPPE_KEEP_ROLLED
  for (int64_t i = block.thread(); i < work.layers; i += kThreads) {
    if (work.entries[i].counted == 0 && work.entries[i].rho == 0.0) continue;
    mine.measure += work.states[i].measure;
    mine.raw += work.states[i].raw;
  }
  const Part norms = sum_over_threads(block, shared, mine);
  const double direction = sqrt(norms.measure), raw = sqrt(norms.raw);
  Part seen;  // kept, examined, |e|^2
  STEPPE_KEEP_ROLLED
  for (int64_t i = block.thread(); i < work.layers; i += kThreads) {
    const Entry& entry = work.entries[i];
    const State& state = work.states[i];
    const double factor = factor_of(entry, state, direction, raw);
    const double length = factor == 0.0 ? 0.0 : sqrt(state.length) * factor;
    const auto kept = static_cast<double>(kept_of(entry, state)), size = static_cast<double>(entry.cut.size);
    work.factors[i] = exact::as_float(factor);
    work.results.layer_gradient_norm[i] = sqrt(state.raw);
    work.results.layer_perturbation_norm[i] = length;
    work.results.layer_kept_share[i] = entry.filtered != 0 ? kept / size : 1.0;
    seen.length += length * length;
    if (entry.filtered == 0) continue;
    seen.sum += kept;
    seen.raw += size;
  }
  const Part total = sum_over_threads(block, shared, seen);
  if (block.thread() != 0) return;
  *work.results.gradient_norm = raw;
  *work.results.perturbation_norm = sqrt(total.length);
  *work.results.kept_share = total.raw > 0.0 ? total.sum / total.raw : 1.0;
  *work.results.finite = is_finite(direction) && is_finite(raw);
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
