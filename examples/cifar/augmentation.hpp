// Crop, flip and normalization of whole batches.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <array>

namespace cifar {

/// Each image padded by 4 black pixels, cropped to its size at a random place, and mirrored with probability 1/2.
///
/// uint8 in and out. The draws come from a CPU generator whatever the images' device, so that all devices see the same.
at::Tensor crop_and_flip(const at::Tensor& images, at::Generator& random);

/// float32 (pixel / 255 - mean) / deviation, per channel.
at::Tensor normalized(const at::Tensor& images, const std::array<double, 3>& mean,
                      const std::array<double, 3>& deviation);

}  // namespace cifar
