#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

double moved_by(const at::Tensor& w, const at::Tensor& gradient);

__global__ void double_it(float* x) { x[threadIdx.x] *= 2.0f; }

double train_on_the_device(std::vector<at::Tensor> parameters) {
  steppe::ZSharp<torch::optim::SGD> optimizer(parameters, torch::optim::SGDOptions(0.1));
  double_it<<<1, 1>>>(parameters.front().data_ptr<float>());
  return moved_by(parameters.front(), parameters.front().detach());
}
