#include "steppe.hpp"

#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/utils.h>

double default_radius();

int main() {
  torch::nn::Linear net(3, 1);
  steppe::ZSharp<torch::optim::SGD> optimizer(net, torch::optim::SGDOptions(0.1));
  optimizer.zero_grad();
  net->forward(torch::ones({2, 3})).square().sum().backward();
  optimizer.step();
  return default_radius() > 0.0 ? 0 : 1;
}
