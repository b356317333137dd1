#include <steppe/steppe.hpp>
#include <torch/optim/sgd.h>

__global__ void double_it(float* x) { x[threadIdx.x] *= 2.0f; }

void train_on_the_device(std::vector<at::Tensor> parameters) {
  steppe::ZSharp<torch::optim::SGD> optimizer(parameters, torch::optim::SGDOptions(0.1));
  double_it<<<1, 1>>>(parameters.front().data_ptr<float>());
}
