// The ascent once more, as plainly as it can be written: what the CUDA kernels are compared with.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <steppe/kernels/cuda/layer.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/formats.hpp>

namespace steppe::kernels::cuda {

/// A layer with its numbers, which its format can hold.
struct Numbers {
  Layer layer;  ///< without pointers
  std::vector<float> g, w;
};

/// What an ascent leaves behind.
struct Outcome {
  std::vector<std::vector<float>> moved;  ///< w + e, or w where a layer is only measured
  double gradient_norm = 0.0, perturbation_norm = 0.0, kept_share = 0.0;
  bool finite = false;
  std::vector<double> layer_gradient_norm, layer_perturbation_norm, layer_kept_share;
};

inline float rounded(float x, Format format) {
  switch (format) {
    case Format::BFloat16:
      return rounded_to<BFloat16>(x);
    case Format::Half:
      return rounded_to<Half>(x);
    default:
      return x;
  }
}

namespace definition {

struct Direction {
  std::vector<float> u;
  std::vector<bool> kept;
  int64_t count = 0;  ///< of what is kept
  bool tail_found = false;
  double raw = 0.0, measure = 0.0, length = 0.0;
};

inline double squares_of(const std::vector<float>& x) {
  double sum = 0.0;
  for (const float each : x) sum += static_cast<double>(each) * static_cast<double>(each);
  return sum;
}

inline float mean_of(const float* x, int64_t n, Format format) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
  return rounded(static_cast<float>(sum / static_cast<double>(n)), format);
}

inline void centralize(std::vector<float>& x, int64_t row, Format format) {
  for (size_t begin = 0; begin < x.size(); begin += static_cast<size_t>(row)) {
    const float mean = mean_of(x.data() + begin, row, format);
    for (size_t i = begin; i < begin + static_cast<size_t>(row); ++i) x[i] = rounded(x[i] - mean, format);
  }
}

inline void filter(Direction& d, const Layer& layer) {
  const float mean = mean_of(d.u.data(), layer.size, layer.format);
  std::vector<float> distance;
  for (const float x : d.u) distance.push_back(std::fabs(rounded(x - mean, layer.format)));
  std::vector<float> sorted = distance;
  std::sort(sorted.begin(), sorted.end());
  const auto rank = static_cast<size_t>(std::floor(layer.quantile * static_cast<double>(layer.size - 1)));
  const float threshold = sorted[std::min(rank, sorted.size() - 1)];
  d.tail_found = sorted.back() > threshold;
  if (!d.tail_found) return;
  for (size_t i = 0; i < d.u.size(); ++i) d.kept[i] = distance[i] > threshold;
  d.count = std::count(d.kept.begin(), d.kept.end(), true);
}

inline Direction direction_of(const Numbers& numbers) {
  const Layer& layer = numbers.layer;
  Direction d;
  d.u = numbers.g;
  d.kept.assign(numbers.g.size(), true);
  d.count = layer.size;
  d.raw = squares_of(d.u);
  if (layer.row > 0) centralize(d.u, layer.row, layer.format);
  if (layer.filtered) filter(d, layer);
  for (size_t i = 0; i < d.u.size(); ++i)
    if (!d.kept[i]) d.u[i] = 0.0f;
  std::vector<float> size(d.u.size(), 1.0f);
  for (size_t i = 0; layer.scaled && i < size.size(); ++i)
    size[i] = rounded(std::fabs(numbers.w[i]) + static_cast<float>(layer.eta), layer.format);
  for (size_t i = 0; i < size.size(); ++i) d.u[i] = rounded(exact::product(d.u[i], size[i]), layer.format);
  d.measure = squares_of(d.u);
  for (size_t i = 0; i < size.size(); ++i) d.u[i] = rounded(exact::product(d.u[i], size[i]), layer.format);
  d.length = squares_of(d.u);
  return d;
}

inline double factor_of(const Layer& layer, const Direction& d, double direction, double raw) {
  double divisor = layer.norm == Norm::Direction ? direction : raw;
  if (layer.norm == Norm::PerTensor && d.tail_found) divisor = std::sqrt(d.measure) + 1e-12;
  const double factor = layer.rho / divisor;
  const bool moves = std::isfinite(direction) && std::isfinite(raw) && divisor > 0.0 &&
                     factor <= static_cast<double>(std::numeric_limits<float>::max());
  return moves ? factor : 0.0;
}

}  // namespace definition

inline Outcome ascend_by_definition(const std::vector<Numbers>& model) {
  std::vector<definition::Direction> directions;
  double direction = 0.0, raw = 0.0, squares = 0.0, kept = 0.0, looked_at = 0.0;
  for (const Numbers& numbers : model) {
    directions.push_back(definition::direction_of(numbers));
    if (!numbers.layer.counted && numbers.layer.rho == 0.0) continue;
    direction += directions.back().measure;
    raw += directions.back().raw;
  }
  Outcome outcome;
  outcome.gradient_norm = std::sqrt(raw);
  outcome.finite = std::isfinite(direction) && std::isfinite(raw);
  for (size_t k = 0; k < model.size(); ++k) {
    const Layer& layer = model[k].layer;
    const definition::Direction& d = directions[k];
    const double factor = definition::factor_of(layer, d, std::sqrt(direction), std::sqrt(raw));
    outcome.moved.push_back(model[k].w);
    for (size_t i = 0; i < d.u.size() && factor != 0.0; ++i)
      // What does not move keeps its bits.
      if (d.kept[i])
        outcome.moved[k][i] =
            rounded(model[k].w[i] + rounded(exact::product(d.u[i], static_cast<float>(factor)), layer.format), layer.format);
    const double length = factor == 0.0 ? 0.0 : std::sqrt(d.length) * factor;
    squares += length * length;
    outcome.layer_gradient_norm.push_back(std::sqrt(d.raw));
    outcome.layer_perturbation_norm.push_back(length);
    const auto size = static_cast<double>(layer.size), count = static_cast<double>(d.count);
    outcome.layer_kept_share.push_back(layer.filtered ? count / size : 1.0);
    if (!layer.filtered) continue;
    kept += count;
    looked_at += size;
  }
  outcome.perturbation_norm = std::sqrt(squares);
  outcome.kept_share = looked_at > 0.0 ? kept / looked_at : 1.0;
  return outcome;
}

}  // namespace steppe::kernels::cuda
