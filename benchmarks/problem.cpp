// SPDX-License-Identifier: MIT
#include "problem.hpp"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cmath>

namespace benchmarks {

Problem::Problem(const ParameterList& list, uint64_t seed, at::Device device)
    : name_(list.name), components_(list.components()) {
  constexpr double kTied = 0.95;
  at::manual_seed(seed);
  int64_t index = 0;
  for (const Shape& shape : list.shapes) {
    const bool vector = shape.size() == 1;
    weights_.push_back(at::empty(shape).normal_(vector ? 1.0 : 0.0, 0.05).to(device).set_requires_grad(true));
    // From 1e-4 to 1e-2, in no order.
    const double scale = std::pow(10.0, -4.0 + 2.0 * static_cast<double>(index++ * 7 % 11) / 10.0);
    first_gradients_.push_back(at::empty(shape).normal_(0.0, scale).to(device));
    zeros_.push_back(at::empty(shape, at::TensorOptions().dtype(at::kBool)).bernoulli_(kTied).to(device));
    gradients_.push_back(at::empty_like(first_gradients_.back()));
  }
}

void Problem::reset_gradients(bool tied) {
  for (size_t i = 0; i < gradients_.size(); ++i) {
    gradients_[i].copy_(first_gradients_[i]);
    if (tied) gradients_[i].masked_fill_(zeros_[i], 0.0);
  }
}

}  // namespace benchmarks
