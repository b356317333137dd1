// CIFAR-10 and CIFAR-100 in their official binary layouts, held as whole uint8 tensors.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

namespace cifar {

struct Split {
  at::Tensor images;  ///< uint8, N x 3 x 32 x 32
  at::Tensor labels;  ///< int64, N
};

struct Dataset {
  std::string name;  ///< "CIFAR-10" or "CIFAR-100"
  int64_t classes = 0;
  std::array<double, 3> mean{}, deviation{};  ///< per channel, of pixels scaled to 0..1
  Split train, test;
};

/// Reads the data set that `folder` is or contains: cifar-10-batches-bin or cifar-100-binary (its fine labels). An
/// empty name is the sample that comes with the programs.
///
/// Errors name the file: missing, truncated, of another kind, a label out of range.
Dataset load_dataset(const std::filesystem::path& folder);

/// The first `count` images; asking for more than there are is an error. `what` names the split in its message.
Split first_images(const Split& split, int64_t count, const std::string& what);

/// The first `train` and `test` images of a data set (0: all of them), on a device. Errors: more than there are.
Dataset cut(const Dataset& data, int64_t train, int64_t test, at::Device device);

/// Replaces `share` of the labels, drawn by `seed`, with another class each.
at::Tensor with_label_noise(const at::Tensor& labels, double share, int64_t classes, uint64_t seed);

}  // namespace cifar
