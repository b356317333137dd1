// SPDX-License-Identifier: MIT
// expect: steppe: this descent mixes the gradients of two passes
#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

#ifdef MISUSE
using Misused = steppe::SharpnessAware<torch::optim::SGD, steppe::ascent::Momentum, steppe::descent::SurrogateGap>;
#else
using Misused = steppe::SharpnessAware<torch::optim::SGD, steppe::ascent::AdaptiveScale, steppe::descent::SurrogateGap>;
#endif
static_assert(sizeof(Misused) > 0);
