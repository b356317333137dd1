// SPDX-License-Identifier: MIT
// expect: steppe::Options is the third
#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

steppe::SAM<torch::optim::SGD> make(const std::vector<at::Tensor>& params) {
#ifdef MISUSE
  return {params, steppe::Options().rho(0.1)};
#else
  return {params, torch::optim::SGDOptions(0.1), steppe::Options().rho(0.1)};
#endif
}
