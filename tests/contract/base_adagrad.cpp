// SPDX-License-Identifier: MIT
#include <torch/optim/adagrad.h>

#include "methods.hpp"

contract::BaseUnderTest contract::adagrad() {
  auto base = base_under_test<torch::optim::Adagrad>("Adagrad", torch::optim::AdagradOptions(0.05));
  base.groups_later = false;  // LibTorch's Adagrad makes its state in the constructor only
  return base;
}
