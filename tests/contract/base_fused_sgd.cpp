// SPDX-License-Identifier: MIT
#include <steppe/base/fused.hpp>
#include <torch/optim/sgd.h>

#include "methods.hpp"

contract::BaseUnderTest contract::fused_sgd() {
  auto base = base_under_test<steppe::Fused<torch::optim::SGD>>(
      "FusedSGD", torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(1e-3));
  base.reduced_dtypes = true;
  return base;
}
