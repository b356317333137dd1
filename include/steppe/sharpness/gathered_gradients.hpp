// Gradients that a backward pass adds to one flat vector.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// While it lives, backward() adds each parameter's gradient to its part of `sum`, in place, so that no second vector
/// of that size is needed. At its end the parameters have no gradient, as before it.
class GatheredGradients {
 public:
  /// `sum`: flat, the parameters' elements in their order.
  GatheredGradients(std::vector<at::Tensor> params, at::Tensor sum) : params_(std::move(params)), sum_(std::move(sum)) {
    for_each([](const at::Tensor& param, const at::Tensor& part) {
      // Another layout is allowed, but LibTorch warns of it.
      if (part.options().type_equal(param.options()) && param.is_contiguous())
        param.mutable_grad() = part.view(param.sizes());
    });
  }

  GatheredGradients(const GatheredGradients&) = delete;
  GatheredGradients& operator=(const GatheredGradients&) = delete;

  ~GatheredGradients() {
    for (const at::Tensor& param : params_) param.mutable_grad() = at::Tensor();
  }

  /// Adds the gradients of parameters whose type, device or layout is not the vector's: to be called after backward().
  void add_others() {
    const c10::NoGradGuard no_grad;
    for_each([](const at::Tensor& param, const at::Tensor& part) {
      const at::Tensor& gradient = param.grad();
      if (!gradient.defined() || gradient.is_alias_of(part)) return;
      part.add_((gradient.layout() == at::kStrided ? gradient : gradient.to_dense()).reshape({-1}).to(part.options()));
    });
  }

 private:
  template <class Visit>
  void for_each(Visit&& visit) const {
    int64_t at = 0;
    for (const at::Tensor& param : params_) {
      visit(param, sum_.narrow(0, at, param.numel()));
      at += param.numel();
    }
  }

  std::vector<at::Tensor> params_;
  at::Tensor sum_;
};

}  // namespace sharpness
STEPPE_NAMESPACE_END
