// The sizes of a two-dimensional convolution, read from LibTorch's options.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <c10/util/Exception.h>
#include <torch/enum.h>
#include <torch/expanding_array.h>
#include <torch/nn/options/conv.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <variant>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// The options of a Conv2d, with the padding in numbers.
struct ConvolutionShape {
  /// Channels of the input and of the output.
  ///@{
  int64_t in_channels = 0, out_channels = 0;
  ///@}
  /// For height and width; before, after: padding by zeros on the two sides.
  ///@{
  std::array<int64_t, 2> kernel{}, stride{}, dilation{}, before{}, after{};
  ///@}
  bool bias = true;  ///< whether the layer has one

  /// From torch::nn::Conv2dOptions or the options that a Conv2d holds. Errors: groups, padding that is not by zeros,
  /// sizes below 1, padding kSame with strides.
  template <class Options>
  ConvolutionShape(const Options& options)  // NOLINT: implicit on purpose
      : in_channels(options.in_channels()), out_channels(options.out_channels()), bias(options.bias()) {
    TORCH_CHECK(options.groups() == 1, "steppe: a tensorized convolution has one group, got ", options.groups());
    using std::get_if, std::holds_alternative;  // LibTorch 1.13 has a variant of its own, found by its namespace
    TORCH_CHECK(holds_alternative<torch::enumtype::kZeros>(options.padding_mode()),
                "steppe: a tensorized convolution pads by zeros only");
    const auto padded_by = options.padding();
    for (size_t d = 0; d < 2; ++d) {
      kernel[d] = (*options.kernel_size())[d];
      stride[d] = (*options.stride())[d];
      dilation[d] = (*options.dilation())[d];
      TORCH_CHECK(kernel[d] >= 1 && stride[d] >= 1 && dilation[d] >= 1,
                  "steppe: kernel, stride and dilation of a "
                  "convolution must be at least 1, got ",
                  kernel[d], ", ", stride[d], " and ", dilation[d]);
      if (const auto* sizes = get_if<torch::ExpandingArray<2>>(&padded_by)) {
        before[d] = after[d] = (**sizes)[d];
        TORCH_CHECK(before[d] >= 0, "steppe: padding must be at least 0, got ", before[d]);
      } else if (holds_alternative<torch::enumtype::kSame>(padded_by)) {
        TORCH_CHECK(stride[d] == 1, "steppe: padding kSame needs a stride of 1, got ", stride[d]);
        const int64_t total = dilation[d] * (kernel[d] - 1);
        before[d] = total / 2;  // the odd one behind, as LibTorch does
        after[d] = total - before[d];
      }
    }
  }

  /// Inputs of one output: channels times the kernel's entries.
  int64_t fan_in() const { return in_channels * kernel[0] * kernel[1]; }
  /// Whether the padding is the same on both sides.
  bool symmetric() const { return before == after; }

  /// The output's height (d = 0) or width (d = 1) for that of an input. Errors: a kernel that is larger than the padded
  /// input.
  int64_t output(size_t d, int64_t input) const {
    const int64_t room = input + before[d] + after[d] - dilation[d] * (kernel[d] - 1) - 1;
    TORCH_CHECK(room >= 0, "steppe: a convolution of kernel ", kernel[d], " and dilation ", dilation[d],
                " does not fit an input of ", input, " padded by ", before[d] + after[d]);
    return room / stride[d] + 1;
  }

  /// The input, padded only where LibTorch's convolution cannot: by different numbers on the two sides.
  at::Tensor padded(const at::Tensor& input) const {
    return symmetric() ? input : at::constant_pad_nd(input, {before[1], after[1], before[0], after[0]}, 0);
  }
  /// The padding that is left to the convolution of padded().
  std::array<int64_t, 2> padding() const { return symmetric() ? before : std::array<int64_t, 2>{0, 0}; }
};

}  // namespace tensorized
STEPPE_NAMESPACE_END
