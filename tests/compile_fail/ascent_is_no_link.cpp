// SPDX-License-Identifier: MIT
// expect: steppe: Ascent must be an ascent link
#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

#ifdef MISUSE
using Misused = steppe::SharpnessAware<torch::optim::SGD, torch::optim::SGDOptions>;
#else
using Misused = steppe::SharpnessAware<torch::optim::SGD, steppe::ascent::ZScoreFilter>;
#endif
static_assert(sizeof(Misused) > 0);
