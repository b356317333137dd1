// The model of the contract suite: convolution, BatchNorm, dropout and a buffer of its own, in any dtype.
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace contract {

/// The device under test: the environment's CONTRACT_DEVICE.
inline at::Device device() {
  const char* set = std::getenv("CONTRACT_DEVICE");
  return at::Device(set == nullptr ? "cpu" : set);
}

/// Parameters have the dtype under test; the arithmetic is in float32 or float64, where every operation exists.
class Net : public torch::nn::Module {
 public:
  explicit Net(at::ScalarType dtype, double dropout = 0.5)
      : compute_(dtype == at::kDouble ? at::kDouble : at::kFloat), dropout_(dropout) {
    torch::manual_seed(7);
    const auto make = [&](at::IntArrayRef shape) {
      return (torch::randn(shape, at::kDouble) * 0.3 + 0.05).to(device(), dtype);
    };
    kernel = register_parameter("kernel", make({3, 1, 2, 2}));
    gain = register_parameter("gain", make({3}) + 1);
    bias = register_parameter("bias", make({3}));
    weight = register_parameter("weight", make({4, 27}));
    head_bias = register_parameter("head_bias", make({4}));
    column = register_parameter("column", make({4, 1}));
    mean = register_buffer("mean", torch::zeros({3}, compute_).to(device()));
    variance = register_buffer("variance", torch::ones({3}, compute_).to(device()));
    forwards = register_buffer("forwards", torch::zeros({}, at::kLong).to(device()));
    inputs = torch::randn({5, 1, 4, 4}, compute_).to(device());
    targets = torch::randn({5, 4}, compute_).to(device());
  }

  at::Tensor loss() {
    forwards.add_(1);
    const auto in = [&](const at::Tensor& t) { return t.to(compute_); };
    auto x = at::conv2d(inputs, in(kernel));
    x = at::batch_norm(x, in(gain), in(bias), mean, variance, /*training=*/true, 0.1, 1e-5, false).tanh();
    x = at::dropout(x.flatten(1), dropout_, /*train=*/true);
    x = at::addmm(in(head_bias), x, in(weight).t()) * (1 + in(column).flatten());
    return (x - targets).square().mean();
  }

  /// The ordinary closure of a training loop.
  std::function<at::Tensor()> closure() {
    return [this] {
      at::Tensor value = loss();
      value.backward();
      return value;
    };
  }

  std::vector<at::Tensor> values() const {
    std::vector<at::Tensor> copies;
    for (const at::Tensor& param : parameters()) copies.push_back(param.detach().clone());
    return copies;
  }
  std::vector<at::Tensor> buffer_values() const {
    std::vector<at::Tensor> copies;
    for (const at::Tensor& buffer : buffers()) copies.push_back(buffer.clone());
    return copies;
  }

  at::Tensor kernel, gain, bias, weight, head_bias, column;
  at::Tensor mean, variance, forwards;
  at::Tensor inputs, targets;

 private:
  at::ScalarType compute_;
  double dropout_;
};

/// Same bits, NaN included.
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.dtype() != b.dtype()) return false;
  const at::Tensor x = a.detach().cpu().contiguous(), y = b.detach().cpu().contiguous();
  return std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

inline bool same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!same_bits(a[i], b[i])) return false;
  return true;
}

}  // namespace contract
