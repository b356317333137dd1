// The shapes of the parameters of well-known models.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace benchmarks {

using Shape = std::vector<int64_t>;

struct ParameterList {
  std::string name;
  std::vector<Shape> shapes;

  int64_t components() const;
};

/// CIFAR form, 10 classes: 11.17M in 62 tensors (arXiv 1512.03385).
ParameterList resnet18();
/// 0.27M in 59 tensors; shortcuts without parameters.
ParameterList resnet20();
/// ViT-B/16 at 224 pixels, 1000 classes: 86.6M in 152 tensors (arXiv 2010.11929).
ParameterList vit();
/// 0.31M in 10 tensors.
ParameterList mlp();

}  // namespace benchmarks
