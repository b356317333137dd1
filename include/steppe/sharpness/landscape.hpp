// Slices of a loss along filter-normalised random directions.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include <steppe/sharpness/displaced.hpp>
#include <steppe/sharpness/hessian.hpp>
#include <steppe/sharpness/loss_surface.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Options of slice().
struct SliceOptions {
  /// The slice reaches from -radius to radius along each direction, in lengths of that direction.
  TORCH_ARG(double, radius) = 1.0;
  /// Per direction; if odd, the middle one is the weights themselves.
  TORCH_ARG(int64_t, points) = 21;
};

/// Losses along one direction.
struct Slice {
  std::vector<double> positions,  ///< x, from -radius to radius
      losses;                     ///< at the positions
};

/// Losses along two directions.
struct Plane {
  std::vector<double> positions;            ///< along each of the directions, from -radius to radius
  std::vector<std::vector<double>> losses;  ///< [i][j]: at positions[i] along the first and [j] along the second
};

/// A random direction whose every filter (row of the first dimension) is as long as that of the weights; zero for
/// tensors of fewer than two dimensions (arXiv 1712.09913). Flat, of surface.numel() elements.
inline at::Tensor filter_normalised_direction(const LossSurface& surface, uint64_t seed) {
  const c10::NoGradGuard no_grad;
  const at::Tensor random = RandomVectors(seed).normal(surface.numel(), surface.vector_options());
  std::vector<at::Tensor> direction;
  int64_t from = 0;
  for (const at::Tensor& param : surface.params()) {
    const at::Tensor raw = random.narrow(0, from, param.numel());
    from += param.numel();
    if (param.dim() < 2) {
      direction.emplace_back();
      continue;
    }
    const at::Tensor rows = raw.view({param.size(0), -1});
    const at::Tensor weights = param.detach().reshape({param.size(0), -1}).to(rows.options());
    direction.push_back(rows * (weights.norm(2, {1}, true) / rows.norm(2, {1}, true)));
  }
  return surface.flat(direction);
}

namespace detail {

inline std::vector<double> positions(const SliceOptions& options) {
  TORCH_CHECK(std::isfinite(options.radius()) && options.radius() > 0.0,
              "steppe: a slice's radius must be over 0, got ", options.radius());
  TORCH_CHECK(options.points() > 1, "steppe: a slice needs at least 2 points, got ", options.points());
  std::vector<double> all;
  const int64_t last = options.points() - 1;
  for (int64_t i = 0; i <= last; ++i)  // exactly 0 in the middle
    all.push_back(options.radius() * static_cast<double>(2 * i - last) / static_cast<double>(last));
  return all;
}

/// Equal losses are those of a flat loss, or of one that was computed before the closure was called: an error.
inline void check_moves(const LossSurface& surface, const std::vector<double>& losses) {
  if (std::adjacent_find(losses.begin(), losses.end(), std::not_equal_to<>()) == losses.end()) surface.check_moves();
}

}  // namespace detail

/// L(w + x d) for x from -radius to radius.
///
/// Cost: one loss per point; memory: one copy of the parameters. Losses that are not finite are given as they are.
/// Errors: a direction of another length, a radius or number of points out of range.
///
///     const auto along = sharpness::slice(surface, sharpness::filter_normalised_direction(surface, /*seed=*/1));
inline Slice slice(const LossSurface& surface, const at::Tensor& direction, const SliceOptions& options = {}) {
  Slice result;
  result.positions = detail::positions(options);
  const std::vector<at::Tensor> d = surface.parts(direction);
  const auto held = surface.hold();
  Displaced weights(surface.params());
  for (const double x : result.positions) {
    weights.move_to(x, d);
    result.losses.push_back(surface.loss());
    surface.tell("slice", static_cast<int64_t>(result.losses.size()), options.points());
  }
  detail::check_moves(surface, result.losses);
  return result;
}

/// L(w + x d1 + y d2) over a square; otherwise like the slice along one direction, with points^2 losses.
inline Plane slice(const LossSurface& surface, const at::Tensor& first, const at::Tensor& second,
                   const SliceOptions& options = {}) {
  Plane result;
  result.positions = detail::positions(options);
  const std::vector<std::vector<at::Tensor>> d = {surface.parts(first), surface.parts(second)};
  const auto held = surface.hold();
  Displaced weights(surface.params());
  int64_t done = 0;
  for (const double x : result.positions) {
    std::vector<double>& row = result.losses.emplace_back();
    for (const double y : result.positions) {
      weights.move({x, y}, d);
      row.push_back(surface.loss());
      surface.tell("plane", ++done, options.points() * options.points());
    }
    detail::check_moves(surface, row);
  }
  return result;
}

}  // namespace sharpness
STEPPE_NAMESPACE_END
