// A direction between, or beyond, the ascent and the second gradient.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include <steppe/descent/step_gradients.hpp>
#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace descent {

/// XSAM (arXiv 2603.10048): descends along
///
///     |g+| v(a),  v(a) = (sin((1 - a) psi) v0 + sin(a psi) v1) / sin psi,  v0 = g / |g|,  v1 = g+ / |g+|,
///     psi = arccos <v0, v1>
///
/// over all parameters that are perturbed (others descend along g+); where sin psi < 1e-8, along |g+| (v0 + v1) / 2. a
/// is the one of {0, .1, ..., 2} with the highest loss of the batch at w + rho_max v(a), the smallest among equals: the
/// step leads away from the worst point nearby. It is searched in the first perturbed step and then every `interval`
/// steps (an epoch, in the paper), by 21 losses: pass step() a closure that computes only the loss as its second
/// argument; otherwise each costs a whole pass.
///
/// Two gradients a step; memory: the first gradients during pass 2, the perturbed weights, and one more copy of the
/// weights while it searches. Checkpoints include a. v0 is the ascent's direction: e is made of the raw gradient.
///
///     steppe::XSAM<torch::optim::SGD> sam(*model, torch::optim::SGDOptions(0.1));
///     sam.descent().interval(batches);
///     sam.step(closure, [&] { return criterion(model->forward(x), y); });
class Extrapolated {
 public:
  static constexpr bool needs_first_gradient = true;  ///< g enters the final gradient
  static constexpr bool needs_raw_ascent = true;      ///< e must be along g itself
  static constexpr bool keeps_state = true;           ///< a, and the step of the last search

  /// The radius at which the losses are compared.
  TORCH_ARG(double, rho_max) = 0.30;
  /// Steps between two searches; 0: one search, at the start.
  TORCH_ARG(int64_t, interval) = 400;

 public:
  /// The radius where Options does not set one.
  double default_rho() const { return 0.15; }

  /// Uses this a, without a search. Throws c10::Error if it is not finite.
  Extrapolated& fixed(double a) {
    TORCH_CHECK(std::isfinite(a), "steppe: XSAM's a must be finite, got ", a);
    a_ = a;
    is_fixed_ = true;
    return *this;
  }
  /// The a of the last search, or the fixed one; 1 before the first search.
  double a() const { return a_; }

  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static void descend(const std::vector<Extrapolated*>& of_groups, std::vector<GroupGradients>& groups,
                      const StepGradients& step) {
    for (Extrapolated* own : of_groups) own->next_ = {own->a_, own->age_};
    if (!step.perturbed || of_groups.empty()) return;
    std::vector<GroupGradients> moved = perturbed_ones(groups);
    const kernels::Products seen =
        kernels::products(detail::joined(moved, &GroupGradients::first), detail::joined(moved, &GroupGradients::final));
    const double first = std::sqrt(seen.xx.item<double>()), second = std::sqrt(seen.yy.item<double>());
    if (!(first > 0.0 && second > 0.0) || !std::isfinite(first) || !std::isfinite(second)) return;
    const double cosine = (std::max)(-1.0, (std::min)(1.0, seen.xy.item<double>() / first / second));
    const Arc arc{first, second, std::acos(cosine)};
    Extrapolated& lead = *of_groups.front();
    double a = lead.a_;
    if (lead.is_due(step.step)) {
      a = lead.search(moved, arc, step);
      for (Extrapolated* own : of_groups) own->next_ = {a, step.step};
    }
    for (size_t k = 0; k < groups.size(); ++k) {
      const auto [on_first, on_second] = arc.factors(of_groups[k]->is_fixed_ ? of_groups[k]->a_ : a, second);
      kernels::combine(on_second, moved[k].final, on_first, moved[k].first, moved[k].final);
      for (size_t i = 0; i < moved[k].final.size(); ++i)
        if (moved[k].final[i].defined()) groups[k].final[i] = moved[k].final[i];
    }
  }
  ///@}

  /// Whether the settings of the search, which is made once for all groups, are the same.
  bool agrees_with(const Extrapolated& other) const {
    return kernels::exact::are_equal(rho_max_, other.rho_max_) && interval_ == other.interval_ &&
           is_fixed_ == other.is_fixed_;
  }

  /// Whether a perturbed step with this number makes a search.
  bool is_due(int64_t step) const { return !is_fixed_ && (age_ < 0 || (interval_ > 0 && step - age_ >= interval_)); }

  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  void bind(const std::vector<at::Tensor>&) { next_ = {a_, age_}; }
  void commit() { std::tie(a_, age_) = next_; }
  void forget() {
    if (!is_fixed_) a_ = 1.0;
    age_ = -1;
  }

  void validate() const {
    TORCH_CHECK(std::isfinite(rho_max_) && rho_max_ > 0.0, "steppe: XSAM's rho_max must be finite and over 0, got ",
                rho_max_);
    TORCH_CHECK(interval_ >= 0, "steppe: XSAM's interval must be at least 0, got ", interval_);
  }

  template <class Fields>
  void fields(Fields& field) {
    field("rho_max", rho_max_);
    field("interval", interval_);
    field("a", a_);
    field("fixed", is_fixed_);
    field("searched_at", age_);
    TORCH_CHECK(std::isfinite(a_), "steppe: the checkpoint has a = ", a_, "; it is damaged");
  }
  ///@}

 private:
  /// The two gradients' lengths and the angle between them.
  struct Arc {
    double first, second, psi;

    /// The factors of g and of g+ in length * v(a).
    std::pair<double, double> factors(double a, double length) const {
      const double sine = std::sin(psi);
      if (sine < 1e-8) return {length / (2.0 * first), length / (2.0 * second)};
      return {length * std::sin((1.0 - a) * psi) / sine / first, length * std::sin(a * psi) / sine / second};
    }
  };

  /// Leaves out parameters that are not perturbed: they keep g+ and do not move in the search.
  static std::vector<GroupGradients> perturbed_ones(std::vector<GroupGradients> groups) {
    for (GroupGradients& group : groups)
      for (size_t i = 0; i < group.params.size(); ++i)
        if (!group.takes_part[i]) group.first[i] = group.final[i] = at::Tensor();
    return groups;
  }

  double search(const std::vector<GroupGradients>& groups, const Arc& arc, const StepGradients& step) const {
    TORCH_CHECK(step.loss_at,
                "steppe: XSAM searches its direction by losses, which ascend() and descend() cannot compute; use "
                "step(closure), or descent().fixed(a)");
    double best = 0.0, highest = -std::numeric_limits<double>::infinity();
    for (int i = 0; i <= 20; ++i) {
      const double a = i / 10.0;
      std::vector<std::vector<at::Tensor>> v(groups.size());
      for (size_t k = 0; k < groups.size(); ++k) {
        const auto [on_first, on_second] = arc.factors(a, 1.0);
        kernels::combine(on_second, groups[k].final, on_first, groups[k].first, v[k]);
      }
      const double loss = step.loss_at(v, rho_max_);
      if (!(loss > highest)) continue;
      highest = loss;
      best = a;
    }
    return best;
  }

  double a_ = 1.0;
  bool is_fixed_ = false;
  int64_t age_ = -1;  ///< the step of the last search
  std::pair<double, int64_t> next_{1.0, -1};
};

}  // namespace descent
STEPPE_NAMESPACE_END
