#include <steppe/steppe.hpp>
#include <torch/optim/sgd.h>
#include <torch/types.h>

at::Tensor train_elsewhere() {
  const at::Tensor w = torch::ones({4, 4}, torch::requires_grad());
  steppe::ZSharp<torch::optim::SGD> optimizer(std::vector<at::Tensor>{w}, torch::optim::SGDOptions(0.1));
  optimizer.step([&] {
    at::Tensor loss = w.square().sum();
    loss.backward();
    return loss;
  });
  return w.detach();
}
