// A small network in float64, its loss, and its Hessian written out in full without the library.
// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <utility>
#include <vector>

namespace steppe::sharpness {

struct SmallNet {
  explicit SmallNet(at::ScalarType type = at::kDouble) {
    torch::manual_seed(3);
    model = torch::nn::Sequential(torch::nn::Linear(3, 4), torch::nn::Tanh(), torch::nn::Linear(4, 2));
    model->to(type);
    inputs = torch::randn({12, 3}, at::kDouble).to(type);
    targets = torch::randint(2, {12}, at::kLong);
  }

  void to(at::Device device) {
    model->to(device);
    inputs = inputs.to(device);
    targets = targets.to(device);
  }

  std::vector<at::Tensor> weights() const {
    std::vector<at::Tensor> copies;
    for (const at::Tensor& param : model->parameters()) copies.push_back(param.detach().clone());
    return copies;
  }
  /// As a measurement must leave it.
  void expect_untouched(const std::vector<at::Tensor>& before) const {
    const auto params = model->parameters();
    for (size_t i = 0; i < params.size(); ++i) {
      EXPECT_TRUE(params[i].equal(before[i]));
      EXPECT_FALSE(params[i].grad().defined());
    }
  }

  at::Tensor loss() { return torch::cross_entropy_loss(model->forward(inputs), targets); }

  torch::nn::Sequential model{nullptr};
  at::Tensor inputs, targets;
};

inline at::Tensor dense_hessian(const std::vector<at::Tensor>& params, const at::Tensor& loss) {
  std::vector<at::Tensor> flat, rows;
  for (const at::Tensor& g : torch::autograd::grad({loss}, params, {}, true, true)) flat.push_back(g.reshape({-1}));
  const at::Tensor gradient = torch::cat(flat);
  for (int64_t i = 0; i < gradient.size(0); ++i) {
    std::vector<at::Tensor> row;
    const auto parts = torch::autograd::grad({gradient[i]}, params, {}, true, false, true);
    for (size_t j = 0; j < parts.size(); ++j)
      row.push_back((parts[j].defined() ? parts[j] : torch::zeros_like(params[j])).reshape({-1}));
    rows.push_back(torch::cat(row).detach());
  }
  return torch::stack(rows);
}

/// w with the loss (1/2) sum d_i w_i^2, whose Hessian is diag(d), at w = 1.
struct Quadratic {
  explicit Quadratic(std::vector<double> spectrum)
      : d(torch::tensor(std::move(spectrum), at::kDouble)), w(torch::ones_like(d).requires_grad_(true)) {}

  at::Tensor loss() const { return 0.5 * (d * w.square()).sum(); }

  at::Tensor d, w;
};

}  // namespace steppe::sharpness
