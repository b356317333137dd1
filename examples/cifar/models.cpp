// SPDX-License-Identifier: MIT
#include "models.hpp"

#include <ATen/ATen.h>
#include <torch/nn/init.h>
#include <torch/utils.h>

#include <stdexcept>

namespace cifar {
namespace {

torch::nn::Conv2d convolution(int64_t in, int64_t out, int64_t size, int64_t stride) {
  torch::nn::Conv2d conv(torch::nn::Conv2dOptions(in, out, size).stride(stride).padding(size / 2).bias(false));
  torch::nn::init::kaiming_normal_(conv->weight, 0.0, torch::kFanOut, torch::kReLU);
  return conv;
}

}  // namespace

BlockImpl::BlockImpl(int64_t in, int64_t out, int64_t stride, Shortcut shortcut)
    : new_channels_(out - in), stride_(stride) {
  conv1_ = register_module("conv1", convolution(in, out, 3, stride));
  norm1_ = register_module("norm1", torch::nn::BatchNorm2d(out));
  conv2_ = register_module("conv2", convolution(out, out, 3, 1));
  norm2_ = register_module("norm2", torch::nn::BatchNorm2d(out));
  if (shortcut == Shortcut::Projection && (in != out || stride != 1)) {
    projection_ = register_module("projection", convolution(in, out, 1, stride));
    projection_norm_ = register_module("projection_norm", torch::nn::BatchNorm2d(out));
  }
}

at::Tensor BlockImpl::shortcut(const at::Tensor& input) {
  if (projection_) return projection_norm_(projection_(input));
  if (new_channels_ == 0 && stride_ == 1) return input;
  const at::Tensor thinned = input.slice(2, 0, input.size(2), stride_).slice(3, 0, input.size(3), stride_);
  return at::constant_pad_nd(thinned, {0, 0, 0, 0, new_channels_ / 2, new_channels_ - new_channels_ / 2});
}

at::Tensor BlockImpl::forward(const at::Tensor& input) {
  const at::Tensor inner = norm1_(conv1_(input)).relu_();
  return (norm2_(conv2_(inner)) + shortcut(input)).relu_();
}

ResNetImpl::ResNetImpl(const ResNetOptions& options, int64_t classes) {
  int64_t channels = options.widths.front();
  conv_ = register_module("conv", convolution(3, channels, 3, options.first_stride));
  norm_ = register_module("norm", torch::nn::BatchNorm2d(channels));
  for (size_t stage = 0; stage < options.widths.size(); ++stage)
    for (int64_t i = 0; i < options.blocks; ++i) {
      const int64_t out = options.widths[stage];
      const Block block(channels, out, stage > 0 && i == 0 ? 2 : 1, options.shortcut);
      blocks_.push_back(register_module("stage" + std::to_string(stage + 1) + "_block" + std::to_string(i + 1), block));
      channels = out;
    }
  linear_ = register_module("linear", torch::nn::Linear(channels, classes));
}

at::Tensor ResNetImpl::forward(const at::Tensor& images) {
  at::Tensor x = norm_(conv_(images)).relu_();
  for (Block& block : blocks_) x = block(x);
  return linear_(x.mean({2, 3}));
}

const std::vector<std::string>& model_names() {
  static const std::vector<std::string> names = {"small", "resnet20", "resnet18"};
  return names;
}

ResNet make_model(const std::string& name, int64_t classes, uint64_t seed) {
  torch::manual_seed(seed);
  // Halving the image at once makes it three times as fast, and on a thousand images no less accurate.
  if (name == "small") return ResNet(ResNetOptions{{16, 32, 64}, 1, Shortcut::Padding, 2}, classes);
  if (name == "resnet20") return ResNet(ResNetOptions{{16, 32, 64}, 3, Shortcut::Padding}, classes);
  if (name == "resnet18") return ResNet(ResNetOptions{{64, 128, 256, 512}, 2, Shortcut::Projection}, classes);
  throw std::runtime_error("there is no model '" + name + "'; choose small, resnet20 or resnet18");
}

}  // namespace cifar
