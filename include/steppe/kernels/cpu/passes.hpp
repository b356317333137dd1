// The passes over memory that an ascent is made of, as functions to be chosen at run time.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cpu/filter_bounds.hpp>
#include <steppe/kernels/formats.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// What is done to the components of one run of memory: centralize, filter, scale; each if it is on.
template <class T>
struct Rule {
  bool centralized = false, filtered = false, scaled = false;
  Number<T> row_mean = 0;  ///< subtracted from every component
  Number<T> mean = 0;      ///< of the components: the filter's distances are from it
  FilterBounds<Number<T>> bounds;
  Number<T> eta = 0;  ///< scaled by |w| + eta
};

/// Sums over a direction.
struct Measured {
  double raw = 0.0;      ///< of g^2, where the rule scales
  double measure = 0.0;  ///< of (T d)^2
  double length = 0.0;   ///< of (T T d)^2
  int64_t kept = 0;      ///< components that the filter kept
};

/// Where the order statistic is searched: low < |x - centre| <= high. One value may be counted instead of listed.
template <class N>
struct Window {
  N centre = 0, low = 0, high = 0;
  bool has_plateau = false;
  N plateau = 0;
};

/// The results of a window pass.
template <class N>
struct Seen {
  double sum = 0.0, squares = 0.0;  ///< of x and x^2
  int64_t plateau = 0;              ///< components equal to the plateau
  N* list = nullptr;                ///< end of the list of the others with |x - centre| > low
};

/// The number of values that a pass may write behind a list.
constexpr int64_t kBlockRoom = 64;

/// Components above a window.
struct AboveWindow {
  double squares = 0.0;
  int64_t count = 0;
};

/// Over two runs: the sums of x x, x y and y y.
struct ProductSums {
  double xx = 0.0, xy = 0.0, yy = 0.0;
};

/// All passes for one storage format; pointers to runs of `n` elements. Finite results have the same bits for every
/// instruction set.
template <class T>
struct Passes {
  using N = Number<T>;

  double (*squares)(const T* g, int64_t n);
  void (*sums)(const T* g, int64_t n, double& sum, double& squares);
  /// Appends to seen.list, which needs room for n and kBlockRoom more.
  void (*window)(const T* g, int64_t n, const Rule<T>& rule, const Window<N>& window, Seen<N>& seen);
  /// |x - mean| of the centralized components.
  void (*distances)(const T* g, int64_t n, const Rule<T>& rule, N* to);
  void (*measure)(const T* g, const T* w, int64_t n, const Rule<T>& rule, Measured& measured);
  /// out = w + factor * u; `out` may be g or w. With non-temporal stores if requested and possible.
  void (*ascend)(const T* g, const T* w, T* out, int64_t n, const Rule<T>& rule, N factor, bool past_cache);
  int64_t (*count_above)(const N* x, int64_t n, N bound);
  /// Writes low < x <= high to `to`, which needs room for 16 more and may be x; returns how many there are.
  int64_t (*between)(const N* x, int64_t n, N low, N high, N* to);
  /// The same of |x - mean|, rounded to the storage format; counts what is above.
  int64_t (*distances_between)(const N* x, int64_t n, N mean, N low, N high, N* to, int64_t& above);
  /// The part of a list that is not above the window; `to` may be x. Sums the others.
  int64_t (*within)(const N* x, int64_t n, const Window<N>& window, N* to, AboveWindow& above);
  /// The sum of x^2 over what the bounds keep, and its number.
  double (*kept_squares)(const N* x, int64_t n, const FilterBounds<N>& bounds, int64_t& kept);
  ProductSums (*products)(const T* x, const T* y, int64_t n);
  /// out = a x + b y, or a x where y is null; `out` may be x or y. With non-temporal stores if requested and possible.
  /// Returns the sum of squares of what was stored.
  double (*combine)(N a, const T* x, N b, const T* y, T* out, int64_t n, bool past_cache);
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
