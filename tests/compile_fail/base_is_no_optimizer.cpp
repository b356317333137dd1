// SPDX-License-Identifier: MIT
// expect: steppe: Base must be an optimizer that derives from torch::optim::Optimizer
#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

struct NoOptimizer {};

#ifdef MISUSE
using Misused = steppe::SAM<NoOptimizer>;
#else
using Misused = steppe::SAM<torch::optim::SGD>;
#endif
static_assert(sizeof(Misused) > 0);
