// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/tensorized_linear.hpp>
#include <torch/cuda.h>
#include <torch/nn/functional/linear.h>
#include <torch/serialize.h>
#include <torch/types.h>

#include <algorithm>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "against_full_layer.hpp"
#include "formats.hpp"

namespace steppe::tensorized {
namespace {

using Sizes = std::vector<int64_t>;

TEST(TensorizedLinear, EqualsTheFullLayerBuiltFromItsCores) {
  struct Shape {
    int64_t in, out, modes, rank;
    bool bias;
  };
  for (const Format format : kFormats) {
    for (const Shape& shape : {Shape{12, 20, 0, 3, true}, Shape{7, 5, 2, 2, false}, Shape{24, 30, 3, 2, true},
                               Shape{16, 1, 1, 1, true}, Shape{12, 20, 1, 4, false}}) {
      for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
        torch::manual_seed(2);
        TensorizedLinear layer(torch::nn::LinearOptions(shape.in, shape.out).bias(shape.bias),
                               of_rank(format, shape.rank).modes(shape.modes));
        layer->to(type);
        for (const Sizes& leading : {Sizes{}, Sizes{1}, Sizes{6}, Sizes{2, 3}, Sizes{2, 1, 3}}) {
          Sizes sizes = leading;
          sizes.push_back(shape.in);
          const at::Tensor input = random(sizes, 4).to(type);
          for (const Route way : {Route::Cores, Route::Full, Route::Cheapest}) {
            layer->route(way);
            expect_equal(
                [&](const at::Tensor& x) { return layer->forward(x); },
                [&](const at::Tensor& x) { return torch::nn::functional::linear(x, layer->weight(), layer->bias); },
                input, layer->parameters(), type == at::kDouble ? 1e-10 : 1e-4);
          }
        }
      }
    }
  }
}

TEST(TensorizedLinear, RebuildsAGivenWeightAtFullRank) {
  for (const Format format : kFormats) {
    for (const bool bias : {true, false}) {
      torch::nn::Linear linear(torch::nn::LinearOptions(12, 20).bias(bias));
      linear->to(at::kDouble);
      // 240 entries in modes 4 5 3 4
      const int64_t rank = format == Format::CP ? 48 : format == Format::Tucker ? 5 : 12;
      TensorizedLinear layer = decompose(*linear, of_rank(format, rank));
      EXPECT_LT(distance(layer->weight().detach(), linear->weight), 1e-13) << format;
      EXPECT_EQ(layer->bias.defined(), bias);
      const at::Tensor input = random({3, 12});
      EXPECT_LT(distance(layer->forward(input), linear->forward(input)), 1e-13) << format;
      EXPECT_EQ(layer->cores()[0].scalar_type(), at::kDouble);
    }
  }
}

TEST(TensorizedLinear, OfALowerRankComesAsNearAsItsDecomposition) {
  torch::nn::Linear linear(12, 20);
  for (const Format format : kFormats) {
    double before = 1.0;
    for (const int64_t rank : {1, 2, 3, 4}) {
      TensorizedLinear layer = decompose(*linear, of_rank(format, rank));
      const double error = distance(layer->weight().detach(), linear->weight);
      EXPECT_LT(error, before) << format;
      EXPECT_GT(error, 1e-3);
      before = error;
    }
  }
  const TensorizedLinear train = decompose(*linear, of_rank(Format::TensorTrain, 3));
  const at::Tensor tensor = linear->weight.detach().to(at::kDouble).view({4, 5, 3, 4});
  EXPECT_NEAR(distance(train->weight().detach(), linear->weight),
              distance(tensor_train(tensor, {3, 3, 3}).full(), tensor), 1e-6);
}

TEST(TensorizedLinear, ItsWeightStartsWithKaimingsVariance) {
  torch::manual_seed(6);
  for (const Format format : kFormats) {
    for (const double gain : {1.4142135623730951, 0.5}) {
      const int64_t trials = 300;
      double sum = 0.0;
      TensorizedLinear layer(36, 30, of_rank(format, 4).gain(gain));
      for (int64_t k = 0; k < trials; ++k) {
        layer->reset_parameters();
        sum += layer->weight().square().mean().item<double>();
        ASSERT_LE(layer->bias.abs().max().item<double>(), 1.0 / 6.0);
      }
      EXPECT_NEAR(sum / static_cast<double>(trials) * 36.0 / (gain * gain), 1.0, 0.15) << format;
    }
  }
}

TEST(TensorizedLinear, TakesTheWayOfFewerMultiplications) {
  // W = U V^T, U [4, 4], V [6, 4]: rows * 4 (6 + 4) against 4 * 6 * 4 to build W and rows * 6 * 4.
  TensorizedLinear layer(6, 4, of_rank(Format::CP, 4).modes(1));
  EXPECT_EQ(layer->multiplications(Route::Cores, {5, 6}), 200.0);
  EXPECT_EQ(layer->multiplications(Route::Full, {5, 6}), 216.0);
  EXPECT_EQ(layer->multiplications(Route::Cheapest, {5, 6}), 200.0);
  EXPECT_EQ(layer->route_for({5, 6}), Route::Cores);
  EXPECT_EQ(layer->route_for({2, 3, 6}), Route::Full);
  EXPECT_EQ(layer->route_for({6}), Route::Cores);
  const auto last = [&](int64_t rows) { return layer->forward(torch::ones({rows, 6})).grad_fn()->name(); };
  EXPECT_EQ(last(5), "AddBackward0");
  EXPECT_EQ(last(7), "AddmmBackward0");
  layer->route(Route::Cores);
  EXPECT_EQ(layer->route_for({7, 6}), Route::Cores);
  EXPECT_EQ(last(7), "AddBackward0");
  layer->route(Route::Full);
  EXPECT_EQ(last(5), "AddmmBackward0");
}

TEST(TensorizedLinear, CountsATrainsContractionsInTheirCheapestOrder) {
  // Cores [1,a=2,2] [2,b=3,3] [3,c=3,2] [2,d=2,1], one row: x with d (3*2*2), with c (3*3*2), b (3*2*3), a (2*2*3).
  TensorizedLinear layer(6, 6, CoreOptions().ranks({2, 3, 2}).out_modes({2, 3}).in_modes({3, 2}));
  EXPECT_EQ(layer->multiplications(Route::Cores, {6}), 12.0 + 18.0 + 18.0 + 12.0);
  // The halves 2*3*2*3 = 36 each, their product 6*6*3, and W x 36.
  EXPECT_EQ(layer->multiplications(Route::Full, {6}), 36.0 + 36.0 + 108.0 + 36.0);
}

TEST(TensorizedLinear, IsCopiedSavedAndLoaded) {
  for (const Format format : kFormats) {
    TensorizedLinear layer(12, 20, of_rank(format, 3));
    layer->to(at::kDouble);
    const at::Tensor input = random({3, 12}), before = layer->forward(input).detach();
    const auto copy = std::dynamic_pointer_cast<TensorizedLinearImpl>(layer->clone());
    EXPECT_TRUE(copy->forward(input).equal(before));
    EXPECT_EQ(copy->cores().size(), layer->cores().size());
    for (size_t k = 0; k < copy->cores().size(); ++k) {
      EXPECT_TRUE(copy->cores()[k].is_same(copy->parameters()[k]));
      EXPECT_FALSE(copy->cores()[k].is_alias_of(layer->cores()[k]));
    }
    std::stringstream file;
    torch::save(layer, file);
    TensorizedLinear other(12, 20, of_rank(format, 3));
    other->to(at::kDouble);
    EXPECT_FALSE(other->forward(input).equal(before));
    torch::load(other, file);
    EXPECT_TRUE(other->forward(input).equal(before));
  }
}

TEST(TensorizedLinear, TakesTheCoresOfOtherProgramsWithRanksThatNoWeightNeeds) {
  // 256 x 256 as 16^4: a chain needs 16, 45, 16.
  TensorizedLinear layer(256, 256, CoreOptions().ranks({45, 45, 45}));
  const std::vector<Sizes> shapes = {{1, 16, 45}, {45, 16, 45}, {45, 16, 45}, {45, 16, 1}};
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> saved;
  for (size_t k = 0; k < 4; ++k) {
    ASSERT_EQ(layer->cores()[k].sizes(), shapes[k]);
    saved.push_back(random(shapes[k], k).to(at::kFloat) * 0.1);
    layer->cores()[k].copy_(saved[k]);
  }
  EXPECT_LT(distance(layer->weight(), TensorTrain{saved}.full().view({256, 256})), 1e-6);
  const at::Tensor weight = layer->weight();
  layer->decompose(weight);
  EXPECT_EQ(layer->cores()[1].sizes(), shapes[1]);
  EXPECT_LT(distance(layer->weight(), weight), 1e-6);
}

TEST(TensorizedLinear, SplitsFeaturesIntoUpToSixModesASide) {
  for (const Format format : kFormats) {
    TensorizedLinear layer(64, 32, of_rank(format, 2).out_modes({2, 2, 2, 2, 2}).in_modes({2, 2, 2, 2, 2, 2}));
    for (const Route way : {Route::Cores, Route::Full}) {
      layer->route(way);
      for (const int64_t rows : {3, 2, 3}) {  // an order of products is kept for one number of rows
        const at::Tensor input = random({rows, 64}).to(at::kFloat);
        EXPECT_LT(distance(layer->forward(input), at::linear(input, layer->weight(), layer->bias)), 1e-5) << format;
      }
    }
  }
}

TEST(TensorizedLinear, SaysWhatItIs) {
  TensorizedLinear layer(16, 10, CoreOptions().format(Format::TensorRing).compression(2));
  std::stringstream out;
  out << *layer;
  EXPECT_EQ(out.str(),
            "steppe::TensorizedLinear(in_features=16, out_features=10, format=TensorRing, modes=[2, 5, 4, 4], "
            "ranks=[2, 2, 2, 2], parameters=60, compression=2.66667, bias=true)");
  EXPECT_GE(layer->compression(), 2.0);
  EXPECT_EQ(layer->ranks(), (Sizes{2, 2, 2, 2}));
}

TEST(TensorizedLinear, WhatDoesNotFitIsNamed) {
  TensorizedLinear layer(12, 20, of_rank(Format::CP, 2));
  expect_error([&] { layer->forward(torch::ones({3, 11})); }, "[3, 11] does not fit a tensorized linear layer of 12");
  expect_error([&] { layer->forward(torch::ones({})); }, "does not fit");
  expect_error([&] { layer->decompose(torch::ones({12, 20})); }, "shape [12, 20] does not fit");
  expect_error([&] { layer->decompose(torch::ones({12, 20})); }, "needs [20, 12]");
  const at::Tensor before = layer->weight().detach();
  expect_error([&] { layer->decompose(torch::full({20, 12}, NAN)); }, "not finite");
  EXPECT_TRUE(layer->weight().equal(before));
  expect_error(
      [] {
        TensorizedLinear(12, 20, CoreOptions().rank(2).in_modes({5, 2}));
      },
      "the modes [5, 2] multiply to 10, not to 12 input features");
  expect_error(
      [] {
        TensorizedLinear(12, 20, CoreOptions().rank(2).out_modes({5, 5}));
      },
      "more than 20 output features");
  expect_error([] { TensorizedLinear(0, 20, CoreOptions().rank(2)); }, "got 0");
  expect_error([] { TensorizedLinear(12, 20, CoreOptions().compression(1000)); }, "out of reach");
  expect_error([] { TensorizedLinear(12, 20, CoreOptions().rank(2).modes(-1)); }, "got -1");
}

TEST(TensorizedLinear, TakesAnEmptyBatch) {
  TensorizedLinear layer(12, 20, of_rank(Format::TensorRing, 2));
  for (const Route way : {Route::Cores, Route::Full}) {
    layer->route(way);
    EXPECT_EQ(layer->forward(torch::ones({0, 12})).sizes(), (Sizes{0, 20}));
  }
}

TEST(TensorizedLinear, OnAGpuIsThatOfTheCpu_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  for (const Format format : kFormats) {
    torch::manual_seed(2);
    TensorizedLinear layer(torch::nn::LinearOptions(12, 20), of_rank(format, 3));
    expect_the_same_on_a_gpu(layer, random({6, 12}, 4));
  }
}

}  // namespace
}  // namespace steppe::tensorized
