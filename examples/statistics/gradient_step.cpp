// SPDX-License-Identifier: MIT
#include "gradient_step.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <steppe/perturbation.hpp>
#include <vector>

namespace statistics {

at::Tensor gradient_step(torch::optim::Optimizer& optimizer, double rho, const std::function<at::Tensor()>& closure) {
  const at::Tensor loss = closure();
  if (rho > 0.0 && std::isfinite(loss.item<double>())) {
    std::vector<at::Tensor> params, gradients;
    double squares = 0.0;
    for (const auto& group : optimizer.param_groups())
      for (const at::Tensor& param : group.params()) {
        params.push_back(param);
        gradients.push_back(param.grad().clone());  // the closure overwrites the other
        squares += gradients.back().to(at::kDouble).square().sum().item<double>();
      }
    // The radius of a Perturbation is that of a normalised gradient.
    const double radius = rho * std::sqrt(squares);
    if (!std::isfinite(radius)) return loss * radius;
    const steppe::Perturbation at(params, gradients, radius);
    closure();
  }
  optimizer.step();
  return loss;
}

}  // namespace statistics
