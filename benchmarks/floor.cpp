// SPDX-License-Identifier: MIT
#include "floor.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numeric>

// One clone per instruction set, chosen when the program is loaded. On Zen 4 vectors of 256 bits are the fastest here:
// with 512 both loops lose a tenth.
#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__)
#define STEPPE_BENCHMARK_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define STEPPE_BENCHMARK_CLONES
#endif

namespace benchmarks {
namespace {

/// Values between two transfers of float lanes to double.
constexpr int64_t kBlock = 16384;
constexpr int64_t kLanes = 32;

STEPPE_BENCHMARK_CLONES double sum_of_squares(const float* values, int64_t size) {
  double total = 0.0;
  int64_t first = 0;
  while (first + kLanes <= size) {
    const int64_t last = std::min(first + kBlock, first + (size - first) / kLanes * kLanes);
    float lanes[kLanes] = {};
    for (; first < last; first += kLanes)
      for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[first + lane] * values[first + lane];
    float folded = 0.0F;
    for (int64_t lane = 0; lane < kLanes; ++lane) folded += lanes[lane];
    total += static_cast<double>(folded);
  }
  for (; first < size; ++first) total += static_cast<double>(values[first]) * static_cast<double>(values[first]);
  return total;
}

STEPPE_BENCHMARK_CLONES void triad(float* __restrict gradient, const float* __restrict weights, float factor,
                                   int64_t size) {
  for (int64_t i = 0; i < size; ++i) gradient[i] = weights[i] + factor * gradient[i];
}

}  // namespace

Floor::Floor(const Problem& problem) : gradients_(problem.gradients()) {
  constexpr int64_t kChunk = int64_t{1} << 16;
  for (size_t i = 0; i < gradients_.size(); ++i) {
    const auto* weights = problem.weights()[i].data_ptr<float>();
    auto* gradient = gradients_[i].data_ptr<float>();
    const int64_t size = gradients_[i].numel();
    for (int64_t at = 0; at < size; at += kChunk)
      chunks_.push_back({weights + at, gradient + at, std::min(kChunk, size - at)});
  }
  squares_.resize(chunks_.size());
}

void Floor::ascend() {
  const auto count = static_cast<int64_t>(chunks_.size());
  at::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i)
      squares_[i] = sum_of_squares(chunks_[i].gradient, chunks_[i].size);
  });
  const double norm = std::sqrt(std::accumulate(squares_.begin(), squares_.end(), 0.0));
  const auto factor = static_cast<float>(rho_of(Method::Sam) / norm);
  at::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i)
      triad(chunks_[i].gradient, chunks_[i].weights, factor, chunks_[i].size);
  });
}

}  // namespace benchmarks
