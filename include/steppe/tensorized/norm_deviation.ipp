// The norms of a layer's cores and of their gradients.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <vector>

#include <steppe/kernels/reference.hpp>
#include <steppe/tensorized/norm_deviation.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

STEPPE_INLINE NormDeviation norm_deviation(const std::vector<at::Tensor>& cores) {
  TORCH_CHECK(!cores.empty(), "steppe: a norm deviation needs the cores of a layer, got none");
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> of_cores, of_gradients;
  for (size_t k = 0; k < cores.size(); ++k) {
    TORCH_CHECK(cores[k].defined(), "steppe: core ", k, " of ", cores.size(), " is an undefined tensor");
    TORCH_CHECK(cores[k].device() == cores.front().device(), "steppe: core ", k, " is on ", cores[k].device(),
                " and core 0 on ", cores.front().device(), "; the cores of a layer must be on one device");
    of_cores.push_back(reference::vector_norm(cores[k].detach(), 2.0).square());
    const at::Tensor& gradient = cores[k].grad();
    of_gradients.push_back(gradient.defined() ? reference::vector_norm(gradient.detach(), 2.0).square()
                                              : at::zeros_like(of_cores.back()));
  }
  return {at::stack(of_cores), at::stack(of_gradients)};
}

}  // namespace tensorized
STEPPE_NAMESPACE_END
