// SPDX-License-Identifier: MIT
#include <torch/optim/adam.h>

#include "methods.hpp"

contract::BaseUnderTest contract::adam() {
  return base_under_test<torch::optim::Adam>("Adam", torch::optim::AdamOptions(0.01).weight_decay(1e-3).amsgrad(true));
}
