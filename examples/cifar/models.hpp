// Residual networks in their CIFAR forms.
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <steppe/tensorized/core_options.hpp>

namespace cifar {

using Cores = std::optional<steppe::tensorized::CoreOptions>;

/// The shortcut of a block that changes the shape.
enum class Shortcut {
  Padding,    ///< every second pixel, new channels zero (ResNet-20; no parameters)
  Projection  ///< a 1x1 convolution with BatchNorm (ResNet-18)
};

/// Two 3x3 convolutions with BatchNorm and a shortcut (arXiv 1512.03385); their weights are in cores where these are
/// given.
class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(int64_t in, int64_t out, int64_t stride, Shortcut shortcut, const Cores& cores);
  at::Tensor forward(const at::Tensor& input);

 private:
  at::Tensor shortcut(const at::Tensor& input);

  int64_t new_channels_, stride_;
  torch::nn::AnyModule conv1_, conv2_, projection_;
  torch::nn::BatchNorm2d norm1_{nullptr}, norm2_{nullptr}, projection_norm_{nullptr};
};
TORCH_MODULE(Block);

struct ResNetOptions {
  std::vector<int64_t> widths;  ///< channels of each stage; every stage but the first halves the image
  int64_t blocks = 1;           ///< per stage
  Shortcut shortcut = Shortcut::Padding;
  int64_t first_stride = 1;  ///< of the convolution before the stages
  Cores cores = {};          ///< of the blocks' 3x3 convolutions
};

/// A 3x3 convolution, stages of blocks, global average, one linear layer.
class ResNetImpl : public torch::nn::Module {
 public:
  ResNetImpl(const ResNetOptions& options, int64_t classes);
  at::Tensor forward(const at::Tensor& images);

 private:
  torch::nn::AnyModule conv_;
  torch::nn::BatchNorm2d norm_{nullptr};
  std::vector<Block> blocks_;
  torch::nn::Linear linear_{nullptr};
};
TORCH_MODULE(ResNet);

/// "small", "resnet20", "resnet18".
const std::vector<std::string>& model_names();

/// "none", "cp", "tucker", "tt", "tr".
const std::vector<std::string>& core_format_names();

/// A model with the initial weights that `seed` draws. With a format of cores, the 3x3 convolutions of its blocks hold
/// at least `compression` times fewer parameters each. Errors: names that do not exist, a compression out of reach.
ResNet make_model(const std::string& name, int64_t classes, uint64_t seed, const std::string& tensorize = "none",
                  double compression = 10.0);

/// The cores of each tensorized layer.
std::vector<std::vector<at::Tensor>> cores_of(const torch::nn::Module& model);

int64_t parameters_of(const torch::nn::Module& model);

}  // namespace cifar
