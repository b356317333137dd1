// SPDX-License-Identifier: MIT
// expect: steppe: this policy decides after pass 1
#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

using torch::optim::SGD;
namespace descent = steppe::descent;
#ifdef MISUSE
using Misused = steppe::SharpnessAware<SGD, steppe::ascent::LastGradient, descent::PerturbedGradient, steppe::policy::Adaptive>;
#else
using Misused = steppe::SharpnessAware<SGD, steppe::ascent::LastGradient, descent::PerturbedGradient, steppe::policy::Tail>;
#endif
static_assert(sizeof(Misused) > 0);
