// SPDX-License-Identifier: MIT
#include <torch/optim/sgd.h>

#include "methods.hpp"

contract::BaseUnderTest contract::sgd() {
  auto base = base_under_test<torch::optim::SGD>("SGD", torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(1e-3));
  base.reduced_dtypes = true;
  return base;
}
