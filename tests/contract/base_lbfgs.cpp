// SPDX-License-Identifier: MIT
#include <torch/optim/lbfgs.h>

#include "methods.hpp"

contract::BaseUnderTest contract::lbfgs() {
  // A history that is full after one step: LibTorch 2.15 cannot save LBFGS before.
  auto base = base_under_test<torch::optim::LBFGS>("LBFGS", torch::optim::LBFGSOptions(0.1).max_iter(4).history_size(2));
  base.needs_closure = true;
  base.groups_later = false;  // LibTorch's LBFGS has one group
  return base;
}
