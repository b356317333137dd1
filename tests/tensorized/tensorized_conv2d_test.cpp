// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/tensorized_conv2d.hpp>
#include <torch/cuda.h>
#include <torch/nn/functional/conv.h>
#include <torch/serialize.h>
#include <torch/types.h>

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "against_full_layer.hpp"
#include "formats.hpp"

namespace steppe::tensorized {
namespace {

using Sizes = std::vector<int64_t>;
using torch::nn::Conv2dOptions;
namespace functional = torch::nn::functional;

/// The layer's output and derivatives on every way against functional::conv2d with its weight.
void expect_full_layer(const Conv2dOptions& conv, const CoreOptions& options, const Sizes& sizes, at::ScalarType type) {
  torch::manual_seed(2);
  TensorizedConv2d layer(conv, options);
  layer->to(type);
  const at::Tensor input = random(sizes, 4).to(type);
  for (const Route way : {Route::Cores, Route::Full, Route::Cheapest}) {
    layer->route(way);
    expect_equal([&](const at::Tensor& x) { return layer->forward(x); },
                 [&](const at::Tensor& x) {
                   return functional::conv2d(x, layer->weight(),
                                             functional::Conv2dFuncOptions()
                                                 .bias(layer->bias)
                                                 .stride(conv.stride())
                                                 .padding(conv.padding())
                                                 .dilation(conv.dilation()));
                 },
                 input, layer->parameters(), type == at::kDouble ? 1e-10 : 1e-4);
  }
}

TEST(TensorizedConv2d, EqualsTheFullLayerBuiltFromItsCores) {
  const std::vector<Conv2dOptions> convolutions = {Conv2dOptions(8, 6, 3).padding(1),
                                                   Conv2dOptions(8, 6, 3).stride(2).padding(1).bias(false),
                                                   Conv2dOptions(5, 7, {3, 2}).stride({1, 2}).padding({2, 0}),
                                                   Conv2dOptions(4, 12, 1),
                                                   Conv2dOptions(4, 12, 1).stride(2),
                                                   Conv2dOptions(1, 4, {2, 3}).dilation({2, 1}),
                                                   Conv2dOptions(6, 1, 3).dilation(2).padding(2),
                                                   Conv2dOptions(4, 4, {4, 3}).padding(torch::kSame).dilation({1, 2}),
                                                   Conv2dOptions(4, 4, 2).padding(torch::kValid)};
  for (const Format format : kFormats) {
    for (const Conv2dOptions& conv : convolutions) {
      for (const Sizes& leading : {Sizes{}, Sizes{1}, Sizes{3}}) {
        Sizes sizes = leading;
        sizes.insert(sizes.end(), {conv.in_channels(), 8, 7});
        expect_full_layer(conv, of_rank(format, 2), sizes, at::kDouble);
      }
      expect_full_layer(conv, of_rank(format, 2), {2, conv.in_channels(), 8, 7}, at::kFloat);
    }
  }
}

TEST(TensorizedConv2d, EqualsTheFullLayerWithChannelsInSeveralModes) {
  for (const Format format : kFormats) {
    for (const int64_t modes : {1, 2, 3})
      expect_full_layer(Conv2dOptions(12, 8, 3).padding(1), of_rank(format, 3).modes(modes), {2, 12, 5, 6},
                        at::kDouble);
    expect_full_layer(Conv2dOptions(12, 8, 3), of_rank(format, 3).in_modes({3, 4}).out_modes({8}), {2, 12, 5, 6},
                      at::kDouble);
  }
  expect_full_layer(Conv2dOptions(12, 8, 3), CoreOptions().format(Format::TensorRing).ranks({3, 2, 4, 5, 2}),
                    {2, 12, 5, 6}, at::kDouble);
  expect_full_layer(Conv2dOptions(12, 8, 3), CoreOptions().format(Format::Tucker).ranks({3, 5}), {2, 12, 5, 6},
                    at::kDouble);
}

TEST(TensorizedConv2d, RebuildsAGivenWeightAtFullRank) {
  for (const Format format : kFormats) {
    for (const bool bias : {true, false}) {
      torch::nn::Conv2d conv(Conv2dOptions(8, 6, {3, 2}).stride(2).padding(1).bias(bias));
      conv->to(at::kDouble);
      // CP and Tucker: modes 6 3 2 8, train and ring: 2 3 6 2 4
      const int64_t rank = format == Format::CP ? 36 : format == Format::Tucker ? 8 : 8;
      TensorizedConv2d layer = decompose(*conv, of_rank(format, rank));
      EXPECT_LT(distance(layer->weight().detach(), conv->weight), 1e-13) << format;
      EXPECT_EQ(layer->bias.defined(), bias);
      const at::Tensor input = random({3, 8, 7, 6});
      EXPECT_LT(distance(layer->forward(input), conv->forward(input)), 1e-13) << format;
    }
  }
}

TEST(TensorizedConv2d, TuckerIsTheTuckerTwoDecomposition) {
  torch::nn::Conv2d conv(Conv2dOptions(8, 6, 3));
  conv->to(at::kDouble);
  TensorizedConv2d layer = decompose(*conv, CoreOptions().format(Format::Tucker).ranks({4, 5}));
  const TuckerTensor two = tucker(conv->weight, {4, 5}, TuckerOptions().modes({0, 1}).sweeps(100).tolerance(1e-8));
  EXPECT_LT(distance(layer->weight().detach(), two.full()), 1e-6);
  EXPECT_EQ(layer->cores()[0].sizes(), (Sizes{4, 3, 3, 5}));
  EXPECT_EQ(layer->cores()[1].sizes(), (Sizes{6, 4}));
  EXPECT_EQ(layer->cores()[2].sizes(), (Sizes{8, 5}));
}

TEST(TensorizedConv2d, ItsWeightStartsWithKaimingsVariance) {
  torch::manual_seed(6);
  for (const Format format : kFormats) {
    const int64_t trials = 300;
    double sum = 0.0;
    TensorizedConv2d layer(Conv2dOptions(16, 12, 3), of_rank(format, 4));
    for (int64_t k = 0; k < trials; ++k) {
      layer->reset_parameters();
      sum += layer->weight().square().mean().item<double>();
    }
    EXPECT_NEAR(sum / static_cast<double>(trials) * 144.0 / 2.0, 1.0, 0.15) << format;
  }
}

TEST(TensorizedConv2d, TakesTheWayOfFewerMultiplications) {
  // Input 2 x 8 x 6 x 5 to 2 x 6 x 3 x 3 by a 3 x 2 kernel of stride 2, padding {1, 1}.
  const Conv2dOptions conv = Conv2dOptions(8, 6, {3, 2}).stride(2).padding(1);
  TensorizedConv2d cp(conv, of_rank(Format::CP, 4));
  // 1x1 from 8 to 4 on 30 pixels; 3x1 to 3 x 5 pixels, 1x2 to 3 x 3; 1x1 to 6.
  EXPECT_EQ(cp->multiplications(Route::Cores, {2, 8, 6, 5}), 2.0 * (30 * 8 * 4 + 4 * (15 * 3 + 9 * 2) + 9 * 4 * 6));
  // Output and height, width and input, both: 4 * (6*3 + 2*8 + 18*16); then 288 on 9 pixels.
  EXPECT_EQ(cp->multiplications(Route::Full, {2, 8, 6, 5}), 4.0 * (18 + 16 + 288) + 2 * 9 * 288);
  EXPECT_EQ(cp->multiplications(Route::Cores, {8, 6, 5}) * 2.0, cp->multiplications(Route::Cores, {2, 8, 6, 5}));
  const TensorizedConv2d tucker_two(conv, CoreOptions().format(Format::Tucker).ranks({3, 2}));
  EXPECT_EQ(tucker_two->multiplications(Route::Cores, {2, 8, 6, 5}), 2.0 * (30 * 8 * 2 + 9 * 2 * 3 * 6 + 9 * 3 * 6));
  // A ring of one mode each: r_0 = 2 passes the kernel as a batch. Matrices 8 -> 2 x 3 and 2 x 4 -> 6 as they are.
  const TensorizedConv2d ring(conv, CoreOptions().format(Format::TensorRing).ranks({2, 4, 3}).modes(1));
  EXPECT_EQ(ring->multiplications(Route::Cores, {2, 8, 6, 5}), 2.0 * (30 * 8 * 6 + 2 * 9 * 3 * 4 * 6 + 9 * 8 * 6));
  EXPECT_EQ(cp->route_for({2, 8, 6, 5}), Route::Cores);
  TensorizedConv2d wide(Conv2dOptions(4, 4, 1), of_rank(Format::CP, 4));
  EXPECT_EQ(wide->route_for({64, 4, 9, 9}), Route::Full);
  const auto last = [](TensorizedConv2d layer, at::IntArrayRef sizes) {
    return layer->forward(torch::ones(sizes)).grad_fn()->name();
  };
  EXPECT_EQ(last(cp, {2, 8, 6, 5}), "AddBackward0");
  EXPECT_EQ(last(wide, {64, 4, 9, 9}), "ConvolutionBackward0");
}

TEST(TensorizedConv2d, ItsOutputLiesInMemoryAsThatOfAConvolution) {
  for (const Format format : kFormats) {
    for (const Route way : {Route::Cores, Route::Full}) {
      TensorizedConv2d layer(Conv2dOptions(8, 6, 3), of_rank(format, 2).route(way));
      EXPECT_TRUE(layer->forward(torch::ones({2, 8, 5, 5})).is_contiguous());
      EXPECT_TRUE(layer->forward(torch::ones({2, 8, 5, 5}).contiguous(at::MemoryFormat::ChannelsLast))
                      .is_contiguous(at::MemoryFormat::ChannelsLast));
    }
  }
}

TEST(TensorizedConv2d, IsCopiedSavedAndLoaded) {
  for (const Format format : kFormats) {
    TensorizedConv2d layer(Conv2dOptions(8, 6, 3), of_rank(format, 2));
    const at::Tensor input = random({3, 8, 5, 5}).to(at::kFloat), before = layer->forward(input).detach();
    const auto copy = std::dynamic_pointer_cast<TensorizedConv2dImpl>(layer->clone());
    EXPECT_TRUE(copy->forward(input).equal(before));
    for (size_t k = 0; k < copy->cores().size(); ++k) {
      EXPECT_TRUE(copy->cores()[k].is_same(copy->parameters()[k]));
      EXPECT_FALSE(copy->cores()[k].is_alias_of(layer->cores()[k]));
    }
    std::stringstream file;
    torch::save(layer, file);
    TensorizedConv2d other(Conv2dOptions(8, 6, 3), of_rank(format, 2));
    torch::load(other, file);
    EXPECT_TRUE(other->forward(input).equal(before));
  }
}

TEST(TensorizedConv2d, WhatDoesNotFitIsNamed) {
  TensorizedConv2d layer(Conv2dOptions(8, 6, 3), of_rank(Format::CP, 2));
  expect_error(
      [&] {
        layer->forward(torch::ones({2, 7, 5, 5}));
      },
      "[2, 7, 5, 5] does not fit a tensorized convolution of 8 channels");
  expect_error([&] { layer->forward(torch::ones({8, 5})); }, "[8, 5] does not fit");
  expect_error(
      [&] {
        layer->forward(torch::ones({8, 5, 2}));
      },
      "kernel 3 and dilation 1 does not fit an input of 2 padded by 0");
  expect_error([&] { layer->decompose(torch::ones({6, 8, 3, 2})); }, "needs [6, 8, 3, 3]");
  const auto says = [](const Conv2dOptions& conv, const CoreOptions& options, const char* words) {
    expect_error([&] { TensorizedConv2d(conv, options); }, words);
  };
  says(Conv2dOptions(8, 6, 3).groups(2), of_rank(Format::CP, 2), "one group, got 2");
  says(Conv2dOptions(8, 6, 3).padding_mode(torch::kReflect), of_rank(Format::CP, 2), "pads by zeros only");
  says(Conv2dOptions(8, 6, 3).stride(2).padding(torch::kSame), of_rank(Format::CP, 2), "stride of 1, got 2");
  says(Conv2dOptions(8, 6, 3).stride(0), of_rank(Format::CP, 2), "got 3, 0 and 1");
  says(Conv2dOptions(8, 6, 3).padding(-1), of_rank(Format::CP, 2), "padding must be at least 0, got -1");
  says(Conv2dOptions(8, 6, 3), of_rank(Format::CP, 2).in_modes({3, 3}), "multiply to more than 8 input channels");
  says(Conv2dOptions(8, 6, 3), CoreOptions().format(Format::Tucker).ranks({3, 0}), "Tucker rank 0 at place 1 must be");
  says(Conv2dOptions(8, 6, 3), CoreOptions().compression(1e6), "out of reach");
}

TEST(TensorizedConv2d, TakesAnEmptyBatch) {
  for (const Format format : kFormats) {
    TensorizedConv2d layer(Conv2dOptions(8, 6, 3), of_rank(format, 2).route(Route::Cores));
    EXPECT_EQ(layer->forward(torch::ones({0, 8, 5, 5})).sizes(), (Sizes{0, 6, 3, 3}));
  }
}

TEST(TensorizedConv2d, OnAGpuIsThatOfTheCpu_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  for (const Format format : kFormats) {
    torch::manual_seed(2);
    TensorizedConv2d layer(Conv2dOptions(4, 6, 3).padding(1), of_rank(format, 2));
    expect_the_same_on_a_gpu(layer, random({2, 4, 5, 5}, 4));
  }
}

}  // namespace
}  // namespace steppe::tensorized
