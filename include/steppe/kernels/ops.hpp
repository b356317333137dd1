// What the ascent kernels compute, as plain values: no tensor library appears here.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/no_fast_math.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// The set of components that a filter's threshold is taken over.
enum class Threshold : int64_t {
  PerTensor,  ///< every parameter tensor ("layer") has its own
  Global,     ///< one over all filtered tensors together
};

/// What a filtered tensor contributes if none of its components is in the tail.
enum class EmptyTail : int64_t {
  PerTensor,  ///< its gradient, unfiltered
  Whole,      ///< nothing, unless this holds for every filtered tensor: then each its gradient
};

/// How a filter chooses the components that it keeps.
enum class Selection : int64_t {
  Percentile,  ///< those above a quantile of |z|
  Energy,      ///< the smallest set that holds a share of the layer's squared norm
};

/// Location and spread of a z-score.
enum class ZScore : int64_t {
  Standard,  ///< mean and sample standard deviation (n - 1)
  Robust,    ///< median and 1.4826 times the median absolute deviation
};

/// What a perturbation is divided by.
enum class Norm : int64_t {
  Direction,  ///< the global norm of the direction itself, so that |e| = rho
  Raw,        ///< the global norm of the raw gradient
  PerTensor,  ///< filtered tensors by their own norm, the others by the raw global norm
};

/// How the radius depends on the norm of the direction.
enum class RadiusRule : int64_t {
  Constant,  ///< not at all: rho
  Unified,   ///< rho (share + (1 - share) N), between SAM and its unnormalized form
  Inverse,   ///< min(sigma / (N + delta), rho)
};

/// Which published rule scales the direction by the size of the weights.
enum class ScaleConvention : int64_t {
  Paper,    ///< T = |w| + eta on weights and normalization gains, 1 on other tensors of one dimension
  Davda54,  ///< T = |w| on every tensor
};

/// The fused part of a direction: centralize, then filter, then scale.
///
/// One of these belongs to each parameter group. It is all that a kernel knows of a method.
struct Recipe {
  struct Centralize {
    bool on = false;
    int64_t min_dim = 2;  ///< tensors of fewer dimensions are left alone
  } centralize;

  struct Filter {
    bool on = false;
    Selection selection = Selection::Percentile;
    double level = 0.95;  ///< the quantile in [0, 1), or the share of energy in (0, 1]
    ZScore z_score = ZScore::Standard;
    Threshold threshold = Threshold::PerTensor;
    int64_t min_dim = 2;  ///< tensors of fewer dimensions are left alone
    EmptyTail empty_tail = EmptyTail::PerTensor;
  } filter;

  struct Scale {
    bool on = false;
    ScaleConvention convention = ScaleConvention::Paper;
    double eta = 0.01;
    bool vectors = false;  ///< tensors of one dimension are normalization gains: scale them
  } scale;

  /// The radius as a function of the norm N that divides the direction: rho times this.
  struct Radius {
    RadiusRule rule = RadiusRule::Constant;
    double share = 1.0;  ///< Unified: share + (1 - share) N
    double sigma = 0.0;  ///< Inverse: min(sigma / (N + delta) / rho, 1)
    double delta = 0.0;
  } radius;

  Norm norm = Norm::Direction;
  double p = 2.0;        ///< the ball |e|_p <= rho; may be infinity
  bool against = false;  ///< e points against the direction: -rho u / N

  /// The raw gradient is the direction, and its norm the divisor.
  bool is_plain() const { return !centralize.on && !filter.on && !scale.on; }
};

STEPPE_NAMESPACE_END
