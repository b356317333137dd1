// SPDX-License-Identifier: MIT
#include <torch/optim/rmsprop.h>

#include "methods.hpp"

contract::BaseUnderTest contract::rmsprop() {
  return base_under_test<torch::optim::RMSprop>("RMSprop",
                                                torch::optim::RMSpropOptions(0.01).momentum(0.5).centered(true));
}
