// SPDX-License-Identifier: MIT
// expect: steppe: Fused supports torch::optim::SGD, Adam, AdamW, Adagrad and RMSprop themselves
#include <steppe/base/fused.hpp>
#include <torch/optim/sgd.h>

class OfTheUser : public torch::optim::SGD {
 public:
  using SGD::SGD;
  at::Tensor step(LossClosure /*closure*/) override { return at::Tensor(); }
};

#ifdef MISUSE
using Misused = steppe::Fused<OfTheUser>;
#else
using Misused = steppe::Fused<torch::optim::SGD>;
#endif
static_assert(sizeof(Misused) > 0);
