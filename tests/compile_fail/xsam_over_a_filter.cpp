// SPDX-License-Identifier: MIT
// expect: steppe: XSAM takes the gradient for the ascent's direction
#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

#ifdef MISUSE
using Misused = steppe::SharpnessAware<torch::optim::SGD, steppe::ascent::ZScoreFilter, steppe::descent::Extrapolated>;
#else
using Misused = steppe::XSAM<torch::optim::SGD>;
#endif
static_assert(sizeof(Misused) > 0);
