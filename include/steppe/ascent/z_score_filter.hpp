// The filter that keeps the tail of each layer's z-scored gradient.
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/arg.h>

#include <c10/util/Exception.h>

#include <cstdint>

#include <steppe/direction.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/schedule.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace ascent {

/// f = g where |z| > t, else 0, with z = (g - mean(g)) / std(g) per parameter tensor and t the `percentile` quantile of
/// |z| (ZSharp, arXiv 2505.02369).
///
/// e = rho * f / N(f): one threshold per tensor, one global norm, so that |e| = rho. Tensors of fewer than `min_dim`
/// dimensions or of at most two elements are not filtered; one whose tail is empty (all equal, all ties) keeps its
/// gradient. The mask needs no std: it is a selection on |g - mean|, the mean accumulated in double and rounded once.
/// Exact for every size and dtype; complex gradients are filtered by |g - mean|.
///
///     steppe::ZSharp<torch::optim::SGD> zsharp(*model, torch::optim::SGDOptions(0.1), steppe::Options().rho(0.05),
///                                              steppe::ascent::ZScoreFilter().percentile(0.9));
class ZScoreFilter {
 public:
  static constexpr Stage stage = Stage::Filter;  ///< its place in a Chain

  /// The quantile of |z| above which components are kept, in [0, 1): 0.95 keeps the top 5 %.
  TORCH_ARG(double, percentile) = 0.95;
  /// The percentile as a function of the step; replaces `percentile` when set.
  TORCH_ARG(schedule::Schedule, percentile_schedule);
  /// Tensors of fewer dimensions (biases, normalization layers) enter unfiltered.
  TORCH_ARG(int64_t, min_dim) = 2;
  /// Threshold::Global takes one quantile over the |z| of all filtered tensors; a tensor without a component in that
  /// tail contributes nothing.
  TORCH_ARG(Threshold, threshold) = Threshold::PerTensor;
  /// ZScore::Robust centres at the median and measures in median absolute deviations.
  TORCH_ARG(ZScore, z_score) = ZScore::Standard;
  /// Norm::PerTensor is the released code's normalization; see released_code().
  TORCH_ARG(Norm, norm) = Norm::Direction;
  /// Above 0: keeps instead the smallest set of components of each tensor whose squared sum reaches this share, in (0,
  /// 1], of the tensor's squared norm; components equal to the smallest of them are kept too.
  TORCH_ARG(double, energy) = 0.0;
  /// What a tensor without a component in the tail contributes: EmptyTail::PerTensor its gradient, EmptyTail::Whole
  /// nothing, unless no filtered tensor has one.
  TORCH_ARG(EmptyTail, empty_tail) = EmptyTail::PerTensor;

 public:
  /// The convention of the released code: e = rho * f / (|f| + 1e-12) for each filtered tensor by itself, so that |e|
  /// is about rho * sqrt(filtered tensors); unfiltered tensors, and those whose tail is empty, get rho * g / N(g).
  static ZScoreFilter released_code() { return ZScoreFilter().norm(Norm::PerTensor); }

  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding an ascent link".
  void describe(Recipe& recipe, int64_t step) const {
    auto& filter = recipe.filter;
    filter.on = true;
    filter.selection = energy_ > 0.0 ? Selection::Energy : Selection::Percentile;
    filter.level = energy_ > 0.0 ? energy_ : percentile_schedule_ ? percentile_schedule_(step) : percentile_;
    check_percentile(energy_ > 0.0 ? 0.0 : filter.level);
    filter.z_score = z_score_;
    filter.threshold = threshold_;
    filter.min_dim = min_dim_;
    filter.empty_tail = empty_tail_;
    if (norm_ != Norm::Direction) recipe.norm = norm_;
  }

  /// Whether its part of the recipe can change from step to step.
  bool varies() const { return kernels::exact::is_zero(energy_) && percentile_schedule_.varies(); }

  void validate() const {
    check_percentile(percentile_);
    detail::check_enumerator("ZScoreFilter().threshold()", threshold_, 2);
    detail::check_enumerator("ZScoreFilter().z_score()", z_score_, 2);
    detail::check_enumerator("ZScoreFilter().norm()", norm_, 3);
    detail::check_enumerator("ZScoreFilter().empty_tail()", empty_tail_, 2);
    TORCH_CHECK(min_dim_ >= 0, "steppe: ZScoreFilter().min_dim() must be at least 0, got ", min_dim_);
    TORCH_CHECK(energy_ >= 0.0 && energy_ <= 1.0, "steppe: energy must be in (0, 1], or 0 for none, got ", energy_);
    TORCH_CHECK(kernels::exact::is_zero(energy_) || threshold_ == Threshold::PerTensor, "steppe: energy(", energy_,
                ") selects within each tensor; use it with Threshold::PerTensor");
    TORCH_CHECK(norm_ != Norm::PerTensor || threshold_ == Threshold::PerTensor,
                "steppe: released_code() has a threshold per tensor; use Norm::Direction with Threshold::Global");
    TORCH_CHECK(!percentile_schedule_ || !percentile_schedule_.needs_lr(),
                "steppe: a percentile cannot follow the learning rate; use constant, linear, cosine or custom");
  }

  template <class Fields>
  void fields(Fields& field) {
    field("percentile", percentile_);
    field("percentile_schedule", percentile_schedule_);
    field("min_dim", min_dim_);
    field("threshold", threshold_);
    field("z_score", z_score_);
    field("norm", norm_);
    field("energy", energy_);
    field("empty_tail", empty_tail_);
  }
  ///@}

 private:
  static void check_percentile(double value) {
    TORCH_CHECK(value >= 0.0 && value < 1.0, "steppe: percentile must be in [0, 1), got ", value,
                "; 0.95 keeps the top 5 %");
  }
};

}  // namespace ascent
STEPPE_NAMESPACE_END
