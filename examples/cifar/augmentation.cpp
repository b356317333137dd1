// SPDX-License-Identifier: MIT
#include "augmentation.hpp"

#include <ATen/ATen.h>

namespace cifar {

at::Tensor crop_and_flip(const at::Tensor& images, at::Generator& random) {
  constexpr int64_t padding = 4;
  const int64_t count = images.size(0), size = images.size(2);
  const auto device = images.device();
  const at::Tensor top = at::randint(0, 2 * padding + 1, {count, 1}, random, at::kLong).to(device);
  const at::Tensor left = at::randint(0, 2 * padding + 1, {count, 1}, random, at::kLong).to(device);
  const at::Tensor mirror = at::randint(0, 2, {count, 1}, random, at::kLong).to(device).to(at::kBool);

  const at::Tensor range = at::arange(size, at::TensorOptions(at::kLong).device(device)).unsqueeze(0);
  const at::Tensor rows = top + range;
  const at::Tensor columns = left + at::where(mirror, size - 1 - range, range);
  const at::Tensor padded = at::constant_pad_nd(images, {padding, padding, padding, padding});
  const at::Tensor image = at::arange(count, range.options()).view({count, 1, 1, 1});
  const at::Tensor channel = at::arange(images.size(1), range.options()).view({1, -1, 1, 1});
  return padded.index({image, channel, rows.view({count, 1, size, 1}), columns.view({count, 1, 1, size})});
}

at::Tensor normalized(const at::Tensor& images, const std::array<double, 3>& mean,
                      const std::array<double, 3>& deviation) {
  const auto options = at::TensorOptions(at::kFloat).device(images.device());
  const auto per_channel = [&](const std::array<double, 3>& values) {
    return at::tensor(at::ArrayRef<double>(values.data(), values.size()), options).view({1, 3, 1, 1});
  };
  return (images.to(at::kFloat) / 255.0 - per_channel(mean)) / per_channel(deviation);
}

}  // namespace cifar
