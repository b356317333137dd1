// SPDX-License-Identifier: MIT
#include <torch/optim/adamw.h>

#include "methods.hpp"

contract::BaseUnderTest contract::adamw() {
  return base_under_test<torch::optim::AdamW>("AdamW", torch::optim::AdamWOptions(0.01).weight_decay(0.1));
}
