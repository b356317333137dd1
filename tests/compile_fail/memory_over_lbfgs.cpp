// SPDX-License-Identifier: MIT
// expect: steppe: this method keeps state from step to step
#include <steppe/optimizers.hpp>
#include <torch/optim/lbfgs.h>
#include <torch/optim/sgd.h>

#ifdef MISUSE
using Misused = steppe::LookSAM<torch::optim::LBFGS>;
#else
using Misused = steppe::LookSAM<torch::optim::SGD>;
#endif
static_assert(sizeof(Misused) > 0);
