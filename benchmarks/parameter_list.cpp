// SPDX-License-Identifier: MIT
#include "parameter_list.hpp"

#include <functional>
#include <numeric>
#include <utility>

namespace benchmarks {
namespace {

void add_convolution_and_norm(std::vector<Shape>& shapes, int64_t in, int64_t out, int64_t size) {
  shapes.push_back({out, in, size, size});
  shapes.push_back({out});
  shapes.push_back({out});
}

void add_linear(std::vector<Shape>& shapes, int64_t in, int64_t out) {
  shapes.push_back({out, in});
  shapes.push_back({out});
}

void add_layer_norm(std::vector<Shape>& shapes, int64_t width) { shapes.insert(shapes.end(), 2, Shape{width}); }

ParameterList residual_network(std::string name, const std::vector<int64_t>& widths, int blocks, bool projects) {
  ParameterList list{std::move(name), {}};
  int64_t channels = widths.front();
  add_convolution_and_norm(list.shapes, 3, channels, 3);
  for (const int64_t width : widths)
    for (int block = 0; block < blocks; ++block) {
      add_convolution_and_norm(list.shapes, channels, width, 3);
      add_convolution_and_norm(list.shapes, width, width, 3);
      if (projects && channels != width) add_convolution_and_norm(list.shapes, channels, width, 1);
      channels = width;
    }
  add_linear(list.shapes, channels, 10);
  return list;
}

int64_t elements(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<int64_t>());
}

}  // namespace

int64_t ParameterList::components() const {
  int64_t sum = 0;
  for (const Shape& shape : shapes) sum += elements(shape);
  return sum;
}

ParameterList resnet18() { return residual_network("resnet18", {64, 128, 256, 512}, 2, true); }

ParameterList resnet20() { return residual_network("resnet20", {16, 32, 64}, 3, false); }

ParameterList vit() {
  constexpr int64_t kWidth = 768, kPatch = 16, kTokens = 197;
  ParameterList list{"vit", {{1, 1, kWidth}, {1, kTokens, kWidth}, {kWidth, 3, kPatch, kPatch}, {kWidth}}};
  for (int block = 0; block < 12; ++block) {
    add_layer_norm(list.shapes, kWidth);
    add_linear(list.shapes, kWidth, 3 * kWidth);
    add_linear(list.shapes, kWidth, kWidth);
    add_layer_norm(list.shapes, kWidth);
    add_linear(list.shapes, kWidth, 4 * kWidth);
    add_linear(list.shapes, 4 * kWidth, kWidth);
  }
  add_layer_norm(list.shapes, kWidth);
  add_linear(list.shapes, kWidth, 1000);
  return list;
}

ParameterList mlp() {
  ParameterList list{"mlp", {}};
  const std::vector<int64_t> widths = {784, 256, 256, 128, 64, 10};
  for (size_t i = 1; i < widths.size(); ++i) add_linear(list.shapes, widths[i - 1], widths[i]);
  return list;
}

}  // namespace benchmarks
