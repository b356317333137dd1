// Gradients clipped to a norm or to a range before the base optimizer's step.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// As torch::nn::utils::clip_grad_norm_ and clip_grad_value_ do, over all parameter groups:
///
///     g <- g * min(1, max_norm / (N(g) + 1e-6)),  then each component to [-limit, limit]
///
/// A norm that is not finite clips nothing. Nothing waits for the device.
class GradientClipping {
 public:
  /// Infinity: nothing is clipped, but the norm is taken.
  void norm(double max_norm, double norm_type) {
    TORCH_CHECK(max_norm > 0.0, "steppe: clip_grad_norm() needs a max_norm over 0, got ", max_norm,
                "; infinity clips nothing");
    TORCH_CHECK(norm_type > 0.0, "steppe: clip_grad_norm() needs a norm_type over 0 (infinity is fine), got ",
                norm_type);
    max_norm_ = max_norm;
    norm_type_ = norm_type;
  }
  void value(double limit) {
    TORCH_CHECK(limit > 0.0, "steppe: clip_grad_value() needs a limit over 0, got ", limit, "; infinity clips nothing");
    limit_ = limit;
  }

  /// Before a step. Errors: a range for complex parameters.
  void check(const at::Tensor& param) const {
    TORCH_CHECK(kernels::exact::is_zero(limit_) || !param.is_complex(),
                "steppe: clip_grad_value() has no meaning for complex parameters, "
                "such as one of shape ",
                param.sizes(), "; use clip_grad_norm()");
  }

  /// The order of the norm that clip() takes; 0: none.
  double takes_norm() const { return max_norm_ > 0.0 ? norm_type_ : 0.0; }

  /// Clips, and returns the norm before it, or an undefined tensor if no norm is set or there is no gradient.
  /// `of_whole`, where given, is that norm.
  at::Tensor clip(std::vector<at::Tensor>& gradients, const at::Tensor& of_whole = {}) const {
    const c10::NoGradGuard no_grad;
    at::Tensor norm;
    if (max_norm_ > 0.0 && !gradients.empty()) {
      norm = of_whole.defined() ? of_whole : norm_of(gradients);
      at::Tensor factor = at::clamp(max_norm_ / (norm + 1e-6), c10::nullopt, 1.0);
      factor = at::where(norm.isfinite(), factor, at::ones_like(factor));
      for (at::Tensor& gradient : gradients) gradient.mul_(factor.to(gradient.device()));
    }
    if (limit_ > 0.0)
      for (at::Tensor& gradient : gradients) {
        if (gradient.is_sparse()) gradient = gradient.coalesce();
        clamp(gradient.is_sparse() ? gradient._values() : gradient);
      }
    return norm;
  }

  bool on() const { return max_norm_ > 0.0 || limit_ > 0.0; }

  template <class Fields>
  void fields(Fields& field) {
    field("max_norm", max_norm_);
    field("norm_type", norm_type_);
    field("limit", limit_);
    TORCH_CHECK(max_norm_ >= 0.0 && norm_type_ > 0.0 && limit_ >= 0.0, "steppe: clipping with max_norm ", max_norm_,
                ", norm_type ", norm_type_, " and limit ", limit_, " has no meaning");
  }

 private:
  void clamp(at::Tensor values) const {
    // LibTorch 1.13 has no clamp of float16 on the CPU.
    if (values.is_cpu() && values.scalar_type() == at::kHalf)
      values.copy_(values.to(at::kFloat).clamp_(-limit_, limit_));
    else
      values.clamp_(-limit_, limit_);
  }

  at::Tensor norm_of(const std::vector<at::Tensor>& gradients) const {
    std::vector<at::Tensor> norms;
    for (const at::Tensor& gradient : gradients) {
      at::Tensor values = gradient.is_sparse() ? gradient.coalesce().values() : gradient;
      if (values.scalar_type() == at::kHalf || values.scalar_type() == at::kBFloat16) values = values.to(at::kFloat);
      if (values.numel() == 0) continue;
      const at::Tensor norm = std::isinf(norm_type_) ? values.abs().amax() : values.norm(norm_type_);
      norms.push_back(norms.empty() ? norm : norm.to(norms.front().device()));
    }
    if (norms.empty()) return gradients.front().new_zeros({}, at::kFloat);
    if (norms.size() == 1) return norms.front();
    const at::Tensor all = at::stack(norms);
    return std::isinf(norm_type_) ? all.amax() : all.norm(norm_type_);
  }

  double max_norm_ = 0.0, norm_type_ = 2.0, limit_ = 0.0;  // 0: off
};

}  // namespace step
STEPPE_NAMESPACE_END
