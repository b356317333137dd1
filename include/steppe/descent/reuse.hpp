// The part of g+ orthogonal to g, reused on the plain steps that follow.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include <steppe/descent/step_gradients.hpp>
#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/per_parameter.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace descent {

/// LookSAM (arXiv 2203.02714). Perturbed steps descend along g+ and keep its part orthogonal to g,
///
///     g_v = g+ - (<g, g+> / |g|^2) g
///
/// plain steps descend along g + alpha (|g| / |g_v|) g_v; along g where there is no g_v yet, or it is zero. Products
/// and norms are over all parameter groups. With every(k) 1 + 1/k gradients a step; memory: g_v, and on perturbed steps
/// the first gradients and the perturbed weights. Checkpoints include g_v. A g_v that is not finite is not kept.
///
///     steppe::LookSAM<torch::optim::SGD> sam(*model, torch::optim::SGDOptions(0.1));
///     sam.every(10).descent().alpha(0.5);
class Reuse {
 public:
  static constexpr bool needs_first_gradient = true;  ///< g enters g_v
  static constexpr bool keeps_state = true;           ///< g_v, and |g_v| / |g|
  static constexpr int64_t default_interval = 5;      ///< every(5), where the program sets no other interval

  /// The paper's .7 is for vision transformers with rho near 1; small convolutional networks need less.
  TORCH_ARG(double, alpha) = 0.3;
  /// Replaces alpha by |g_v| / |g| of the last perturbed step.
  TORCH_ARG(bool, measured) = false;
  /// Takes products and norms per tensor; e keeps the global norm.
  TORCH_ARG(bool, per_tensor) = false;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static void descend(const std::vector<Reuse*>& of_groups, std::vector<GroupGradients>& groups,
                      const StepGradients& step) {
    std::vector<at::Tensor> kept;
    for (size_t k = 0; k < groups.size(); ++k)
      for (const at::Tensor& param : groups[k].params) kept.push_back(of_groups[k]->across_.of(param));
    const auto first = detail::joined(groups, &GroupGradients::first);
    const auto final = detail::joined(groups, &GroupGradients::final);
    const kernels::Products all = kernels::products(step.perturbed ? first : final, step.perturbed ? final : kept);
    step.perturbed ? keep(of_groups, groups, all) : add(of_groups, groups, kept, all);
  }

  void bind(const std::vector<at::Tensor>& params) {
    across_.bind(params);
    ratio_.bind(params);
  }
  void commit() {
    across_.commit();
    ratio_.commit();
  }
  void forget() {
    across_.forget();
    ratio_.forget();
  }
  int64_t bytes() const { return across_.bytes(); }

  void validate() const { TORCH_CHECK(std::isfinite(alpha_), "steppe: LookSAM's alpha must be finite, got ", alpha_); }

  template <class Fields>
  void fields(Fields& field) {
    field("alpha", alpha_);
    field("measured", measured_);
    field("per_tensor", per_tensor_);
    field("across", across_);
    field("ratio", ratio_);
  }
  ///@}

 private:
  static void keep(const std::vector<Reuse*>& of_groups, const std::vector<GroupGradients>& groups,
                   const kernels::Products& all) {
    const bool finite = all.xx.isfinite().logical_and(all.yy.isfinite()).item<bool>();
    std::vector<at::Tensor> across(1), squares, lengths;
    at::Tensor together = at::zeros_like(all.xx);
    for (size_t k = 0; k < groups.size(); ++k)
      for (size_t i = 0; i < groups[k].params.size(); ++i) {
        const std::vector<at::Tensor> first = {groups[k].first[i]}, final = {groups[k].final[i]};
        const kernels::Products seen = of_groups[k]->per_tensor_ ? kernels::products(first, final) : all;
        across[0] = at::Tensor();
        squares.push_back(
            kernels::combine(at::ones_like(seen.xx), final, -detail::ratio(seen.xy, seen.xx), first, across));
        lengths.push_back(seen.xx);
        together = together + squares.back().to(together.device());
        if (across[0].defined() && across[0].is_sparse()) across[0] = across[0].to_dense();
        of_groups[k]->across_.set(groups[k].params[i], finite ? across[0] : at::Tensor());
      }
    size_t at = 0;
    for (size_t k = 0; k < groups.size(); ++k)
      for (size_t i = 0; i < groups[k].params.size(); ++i, ++at)
        of_groups[k]->ratio_.set(groups[k].params[i],
                                 detail::ratio(of_groups[k]->per_tensor_ ? squares[at] : together, lengths[at]).sqrt());
  }

  static void add(const std::vector<Reuse*>& of_groups, std::vector<GroupGradients>& groups,
                  const std::vector<at::Tensor>& kept, const kernels::Products& all) {
    size_t at = 0;
    for (size_t k = 0; k < groups.size(); ++k)
      for (size_t i = 0; i < groups[k].params.size(); ++i, ++at) {
        if (!kept[at].defined()) continue;
        const Reuse& own = *of_groups[k];
        std::vector<at::Tensor> final = {groups[k].final[i]};
        const std::vector<at::Tensor> across = {kept[at]};
        const kernels::Products seen = own.per_tensor_ ? kernels::products(final, across) : all;
        const at::Tensor alpha = own.measured_ ? own.ratio_.of(groups[k].params[i]).to(seen.xx.device())
                                               : at::full_like(seen.xx, own.alpha_);
        const at::Tensor factor = alpha * detail::ratio(seen.xx, seen.yy).sqrt();
        kernels::combine(at::ones_like(factor), final, factor.masked_fill(factor.isfinite().logical_not(), 0.0), across,
                         final);
        groups[k].final[i] = final[0];
      }
  }

  PerParameter across_, ratio_;
};

}  // namespace descent
STEPPE_NAMESPACE_END
