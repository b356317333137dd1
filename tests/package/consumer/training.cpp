#include <steppe/steppe.hpp>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

double loss_after_a_step();

double loss_after_a_step() {
  torch::nn::Linear net(3, 1);
  steppe::SAM<torch::optim::SGD> optimizer(net, torch::optim::SGDOptions(0.1));
  optimizer.zero_grad();
  net->forward(torch::ones({2, 3})).square().sum().backward();
  optimizer.step();
  return net->forward(torch::ones({2, 3})).square().sum().item<double>();
}
