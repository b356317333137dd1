// The ascent confined to the components of highest Fisher information.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#include <steppe/direction.hpp>
#include <steppe/per_parameter.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace ascent {

/// e = rho * mask g / N(g), N the norm of the whole gradient, where the mask keeps the share 1 - sparsity of the
/// group's components with the largest Fisher information f (Sparse SAM with Fisher masks, arXiv 2210.05177).
///
/// f is g^2 of the current batch, renewed every `interval` perturbed steps; or the mean of g^2 over single samples, as
/// in the paper, by renew(). Components equal to the smallest one kept are kept too. Two gradients a step; memory: one
/// byte a component. Checkpoints include the masks. Computed by ATen operations: no fused kernel supports masks.
///
///     steppe::SSAM<torch::optim::SGD> sam(*model, torch::optim::SGDOptions(0.1));
///     sam.ascent().interval(500);
class FisherMask {
 public:
  /// The share of components that are not perturbed, in [0, 1).
  TORCH_ARG(double, sparsity) = 0.5;
  /// Perturbed steps between two masks from the current batch; 0: masks by renew() only.
  TORCH_ARG(int64_t, interval) = 100;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static constexpr bool keeps_state = true;
  static constexpr Stage stage = Stage::Custom;

  void describe(Recipe& recipe, int64_t /*step*/) const { recipe.norm = Norm::Raw; }

  void operator()(std::vector<at::Tensor>& direction, const std::vector<at::Tensor>& params) {
    next_age_ = age_ + 1;
    if (interval_ > 0 && age_ % interval_ == 0) {
      std::vector<at::Tensor> sizes;  // ordered as their squares, which may overflow in 16 bits
      for (const at::Tensor& d : direction) sizes.push_back(d.abs());
      keep_largest(params, sizes, fresh_);
    }
    for (size_t i = 0; i < direction.size(); ++i) {
      at::Tensor mask;
      for (const auto& [param, of_param] : fresh_)
        if (param.is_same(params[i])) mask = of_param;
      if (!mask.defined()) mask = masks_.of(params[i]);
      if (mask.defined()) direction[i].masked_fill_(mask.logical_not(), 0);
    }
  }
  ///@}

  /// Masks from single samples: `backward_of(k)` leaves the gradients of sample k alone in grad(), which is cleared
  /// before each and afterwards. Errors: no samples.
  void renew(const std::vector<at::Tensor>& params, int64_t samples, const std::function<void(int64_t)>& backward_of) {
    TORCH_CHECK(samples >= 1, "steppe: FisherMask().renew() needs at least one sample, got ", samples);
    std::vector<at::Tensor> fisher(params.size());
    for (int64_t k = 0; k < samples; ++k) {
      for (const at::Tensor& param : params) param.mutable_grad() = at::Tensor();
      backward_of(k);
      const c10::NoGradGuard no_grad;
      for (size_t i = 0; i < params.size(); ++i) {
        if (!params[i].grad().defined()) continue;
        const at::Tensor size = params[i].grad().abs();
        const at::Tensor squares = (size.element_size() == 2 ? size.to(at::kFloat) : size).square();
        fisher[i] = fisher[i].defined() ? fisher[i] + squares : squares;
      }
    }
    std::vector<at::Tensor> seen_params, seen_fisher;
    for (size_t i = 0; i < params.size(); ++i) {
      params[i].mutable_grad() = at::Tensor();
      if (!fisher[i].defined()) continue;
      seen_params.push_back(params[i]);
      seen_fisher.push_back(fisher[i]);
    }
    const c10::NoGradGuard no_grad;
    Masks masks;
    keep_largest(seen_params, seen_fisher, masks);
    for (auto& [param, mask] : masks) masks_.set(param, mask);
    masks_.commit();
  }

  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  void bind(const std::vector<at::Tensor>& params) {
    masks_.bind(params);
    fresh_.clear();
    next_age_ = age_;
  }
  void commit() {
    for (auto& [param, mask] : std::exchange(fresh_, {})) masks_.set(param, mask);
    masks_.commit();
    age_ = next_age_;
  }
  void forget() {
    masks_.forget();
    fresh_.clear();
    age_ = next_age_ = 0;
  }
  int64_t bytes() const { return masks_.bytes(); }

  void validate() const {
    TORCH_CHECK(sparsity_ >= 0.0 && sparsity_ < 1.0, "steppe: FisherMask().sparsity() must be in [0, 1), got ",
                sparsity_);
    TORCH_CHECK(interval_ >= 0, "steppe: FisherMask().interval() must be at least 0, got ", interval_);
  }

  template <class Fields>
  void fields(Fields& field) {
    field("sparsity", sparsity_);
    field("interval", interval_);
    field("age", age_);
    field("masks", masks_);
    TORCH_CHECK(age_ >= 0, "steppe: the checkpoint has a mask of age ", age_, "; it is damaged");
    next_age_ = age_;
  }
  ///@}

 private:
  using Masks = std::vector<std::pair<at::Tensor, at::Tensor>>;

  void keep_largest(const std::vector<at::Tensor>& params, const std::vector<at::Tensor>& fisher, Masks& masks) const {
    masks.clear();
    std::vector<at::Tensor> flat;
    for (const at::Tensor& each : fisher) flat.push_back(each.flatten().to(fisher.front().device()));
    if (flat.empty()) return;
    const at::Tensor all = at::cat(flat);
    const auto count = static_cast<int64_t>(std::floor((1.0 - sparsity_) * static_cast<double>(all.numel()) + 0.5));
    const int64_t rank = all.numel() - (std::max)(count, int64_t{1}) + 1;
    const at::Tensor bound = std::get<0>((all.element_size() == 2 ? all.to(at::kFloat) : all).kthvalue(rank));
    for (size_t i = 0; i < params.size(); ++i) masks.emplace_back(params[i], fisher[i] >= bound.to(fisher[i].device()));
  }

  int64_t age_ = 0, next_age_ = 0;
  PerParameter masks_;
  Masks fresh_;
};

}  // namespace ascent
STEPPE_NAMESPACE_END
