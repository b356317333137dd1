// SPDX-License-Identifier: MIT
#include <steppe/base/fused.hpp>
#include <torch/optim/adamw.h>

#include "methods.hpp"

contract::BaseUnderTest contract::fused_adamw() {
  return base_under_test<steppe::Fused<torch::optim::AdamW>>("FusedAdamW",
                                                             torch::optim::AdamWOptions(0.01).weight_decay(0.1));
}
