// A tensorized layer compared with the full layer of the same weight: outputs, gradients, and gradients of gradients.
// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "random_tensors.hpp"

namespace steppe::tensorized {

using Function = std::function<at::Tensor(const at::Tensor&)>;

/// The output, its first derivatives by input and parameters along a fixed direction, and the derivatives of the sum of
/// their squares.
inline std::vector<at::Tensor> with_derivatives(const Function& function, const at::Tensor& input,
                                                std::vector<at::Tensor> parameters) {
  const at::Tensor x = input.detach().requires_grad_();
  parameters.insert(parameters.begin(), x);
  const at::Tensor output = function(x);
  const at::Tensor along = torch::cos(torch::arange(output.numel(), output.options())).view(output.sizes());
  std::vector<at::Tensor> all = {output.detach()};
  const std::vector<at::Tensor> first =
      torch::autograd::grad({output}, parameters, {along}, true, /*create_graph=*/true);
  at::Tensor sum = output.square().sum();
  for (const at::Tensor& each : first) {
    all.push_back(each.detach());
    sum = sum + each.square().sum();
  }
  for (const at::Tensor& each : torch::autograd::grad({sum}, parameters)) all.push_back(each);
  return all;
}

/// Every one of them within `tolerance` of that of the full layer, relative to its norm.
inline void expect_equal(const Function& layer, const Function& full, const at::Tensor& input,
                         const std::vector<at::Tensor>& parameters, double tolerance) {
  const std::vector<at::Tensor> ours = with_derivatives(layer, input, parameters);
  const std::vector<at::Tensor> theirs = with_derivatives(full, input, parameters);
  ASSERT_EQ(ours.size(), theirs.size());
  for (size_t k = 0; k < ours.size(); ++k) {
    EXPECT_EQ(ours[k].scalar_type(), input.scalar_type());
    EXPECT_LT(distance(ours[k], theirs[k]), tolerance) << "tensor " << k;
  }
}

/// Both ways through a layer give the same on a GPU as on the CPU, derivatives too.
template <class Layer>
void expect_the_same_on_a_gpu(Layer& layer, const at::Tensor& input) {
  layer->to(at::kDouble);
  for (const Route way : {Route::Cores, Route::Full}) {
    layer->route(way);
    layer->to(at::kCPU);
    const auto forward = [&](const at::Tensor& x) { return layer->forward(x); };
    const std::vector<at::Tensor> expected = with_derivatives(forward, input, layer->parameters());
    layer->to(at::kCUDA);
    const std::vector<at::Tensor> ours = with_derivatives(forward, input.to(at::kCUDA), layer->parameters());
    for (size_t k = 0; k < ours.size(); ++k) EXPECT_LT(distance(ours[k].cpu(), expected[k]), 1e-10) << "tensor " << k;
  }
}

}  // namespace steppe::tensorized
