#include <torch/torch.h>

#include <steppe/steppe.hpp>

#include <cstdio>

int main() {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(2, 32), torch::nn::BatchNorm1d(32), torch::nn::ReLU(),
                              torch::nn::Linear(32, 2));
  const auto inputs = torch::randn({512, 2});
  const auto targets = (inputs.pow(2).sum(1) > 1.4).to(torch::kLong);  // inside or outside a circle

#ifdef PLAIN_SGD
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
#else
  steppe::ZSharp<torch::optim::SGD> optimizer(*model, torch::optim::SGDOptions(0.1).momentum(0.9));
#endif
  torch::optim::StepLR scheduler(optimizer, /*step_size=*/20, /*gamma=*/0.5);

  for (int epoch = 1; epoch <= 60; ++epoch) {
    optimizer.zero_grad();
    const auto loss = torch::cross_entropy_loss(model->forward(inputs), targets);
    loss.backward();
    optimizer.step();
    scheduler.step();
    if (epoch % 20 == 0) std::printf("epoch %2d  loss %.4f\n", epoch, loss.item<double>());
  }
}
