// SPDX-License-Identifier: MIT
// expect: steppe: Descent must be callable as
#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

#ifdef MISUSE
using Misused = steppe::SharpnessAware<torch::optim::SGD, steppe::ascent::Gradient, int>;
#else
using Misused = steppe::SharpnessAware<torch::optim::SGD, steppe::ascent::Gradient, steppe::descent::Centralize>;
#endif
static_assert(sizeof(Misused) > 0);
