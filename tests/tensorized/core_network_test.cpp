// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/core_network.hpp>
#include <torch/types.h>

#include <algorithm>
#include <vector>

#include "random_tensors.hpp"

namespace steppe::tensorized {
namespace {

using Sizes = std::vector<int64_t>;

const std::vector<Format> kFormats = {Format::CP, Format::Tucker, Format::TensorTrain, Format::TensorRing};

CoreNetwork network(Format format, const CoreOptions& options, const Sizes& modes = {3, 4, 2, 5}) {
  return CoreNetwork(modes, {0, 0}, CoreOptions(options).format(format));
}

std::vector<at::Tensor> random_cores(const CoreNetwork& of) {
  std::vector<at::Tensor> cores;
  for (const Sizes& shape : of.shapes()) cores.push_back(random(shape, cores.size() + 1));
  return cores;
}

at::Tensor full(Format format, const std::vector<at::Tensor>& cores) {
  switch (format) {
    case Format::CP:
      return CPTensor{cores}.full();
    case Format::Tucker:
      return TuckerTensor{cores[0], {cores.begin() + 1, cores.end()}, {}}.full();
    case Format::TensorTrain:
      return TensorTrain{cores}.full();
    case Format::TensorRing:
      break;
  }
  return TensorRing{cores}.full();
}

TEST(CoreNetwork, HasTheShapesOfItsFormat) {
  EXPECT_EQ(network(Format::CP, CoreOptions().rank(6)).shapes(), (std::vector<Sizes>{{3, 6}, {4, 6}, {2, 6}, {5, 6}}));
  EXPECT_EQ(network(Format::Tucker, CoreOptions().rank(3)).shapes(),
            (std::vector<Sizes>{{3, 3, 2, 3}, {3, 3}, {4, 3}, {2, 2}, {5, 3}}));
  EXPECT_EQ(network(Format::TensorTrain, CoreOptions().rank(4)).shapes(),
            (std::vector<Sizes>{{1, 3, 3}, {3, 4, 4}, {4, 2, 4}, {4, 5, 1}}));
  EXPECT_EQ(network(Format::TensorRing, CoreOptions().rank(4)).shapes(),
            (std::vector<Sizes>{{4, 3, 4}, {4, 4, 4}, {4, 2, 4}, {4, 5, 4}}));
  const CoreNetwork kept({6, 3, 3, 5}, {1, 3}, CoreOptions().format(Format::Tucker).ranks({2, 4}));
  EXPECT_EQ(kept.shapes(), (std::vector<Sizes>{{2, 3, 3, 4}, {6, 2}, {5, 4}}));
  EXPECT_EQ(kept.core_of(0), 1U);
  EXPECT_EQ(kept.core_of(1), 0U);
  EXPECT_EQ(kept.core_of(3), 2U);
}

TEST(CoreNetwork, ItsTensorIsThatOfTheDecomposition) {
  for (const Format format : kFormats) {
    const CoreNetwork made = network(format, CoreOptions().rank(3));
    const std::vector<at::Tensor> cores = random_cores(made);
    EXPECT_LT(distance(made.full(cores), full(format, cores)), 1e-14) << format;
  }
}

TEST(CoreNetwork, ItsTensorStaysWhereCoresAreRescaled) {
  for (const Format format : kFormats) {
    const CoreNetwork made = network(format, CoreOptions().rank(3));
    std::vector<at::Tensor> cores = random_cores(made);
    const at::Tensor before = made.full(cores);
    cores[0] = cores[0] * 7.0;
    cores[2] = cores[2] / 7.0;
    EXPECT_LT(distance(made.full(cores), before), 1e-14) << format;
    cores[1] = cores[1] * 2.0;
    EXPECT_LT(distance(made.full(cores), before * 2.0), 1e-14) << format;
  }
}

TEST(CoreNetwork, ReachesACompressionWithTheLargestRank) {
  for (const Format format : kFormats) {
    for (const Sizes& modes : {Sizes{8, 8, 8, 8}, Sizes{4, 16, 9, 8, 8}, Sizes{64, 32}}) {
      for (const double target : {1.5, 4.0, 15.0}) {
        const CoreNetwork made = network(format, CoreOptions().compression(target), modes);
        EXPECT_GE(made.compression(), target) << format << at::IntArrayRef(modes);
        int64_t parameters = 0;
        for (const at::Tensor& core : random_cores(made)) parameters += core.numel();
        EXPECT_EQ(made.parameters(), parameters);
        EXPECT_EQ(made.compression(), static_cast<double>(made.entries()) / static_cast<double>(parameters));
        const int64_t rank = *std::max_element(made.ranks().begin(), made.ranks().end());
        EXPECT_LT(network(format, CoreOptions().rank(rank + 1), modes).compression(), target) << format;
      }
    }
  }
}

TEST(CoreNetwork, RebuildsATensorAtFullRankFromCoresOfEqualNorms) {
  const at::Tensor tensor = random({3, 4, 2, 5});
  for (const Format format : kFormats) {
    const int64_t rank = format == Format::CP ? 24 : format == Format::Tucker ? 5 : 10;
    const CoreNetwork made = network(format, CoreOptions().rank(rank));
    const std::vector<at::Tensor> cores = made.decompose(tensor, 100, 1e-8);
    EXPECT_LT(distance(made.full(cores), tensor), 1e-13) << format;
    for (size_t k = 0; k < cores.size(); ++k) {
      EXPECT_EQ(cores[k].sizes(), made.shapes()[k]);
      EXPECT_NEAR(frobenius(cores[k]) / frobenius(cores[0]), 1.0, 1e-12) << format;
    }
  }
}

TEST(CoreNetwork, WhatARingHasBeyondATensorsRanksAddsNothingAndCanLearn) {
  const at::Tensor tensor = random({3, 4, 2, 5});
  const CoreNetwork made = network(Format::TensorRing, CoreOptions().rank(6));
  std::vector<at::Tensor> cores = made.decompose(tensor, 0, 0.0);
  EXPECT_LT(tensor_ring(tensor, {6, 6, 6, 6}).ranks()[0], 6);
  EXPECT_LT(distance(made.full(cores), tensor_ring(tensor, {6, 6, 6, 6}).full()), 1e-13);
  for (at::Tensor& core : cores) core.requires_grad_();
  (made.full(cores) - random({3, 4, 2, 5}, 9)).square().sum().backward();
  for (size_t k = 0; k < cores.size(); ++k) {
    const at::Tensor by_rank =
        cores[k].grad().square().sum(Sizes{0, 1}) + cores[(k + 1) % cores.size()].grad().square().sum(Sizes{1, 2});
    EXPECT_TRUE(by_rank.gt(1e-6).all().item<bool>()) << k;
  }
}

TEST(CoreNetwork, ATensorOfZerosHasCores) {
  for (const Format format : kFormats) {
    const CoreNetwork made = network(format, CoreOptions().rank(2));
    const at::Tensor rebuilt = made.full(made.decompose(torch::zeros({3, 4, 2, 5}), 5, 1e-8));
    EXPECT_TRUE(rebuilt.eq(0).all().item<bool>()) << format;
  }
}

TEST(CoreNetwork, ImpossibleRanksAndTargetsAreNamed) {
  const auto says = [](Format format, const CoreOptions& options, const char* words) {
    expect_error([&] { network(format, options); }, words);
  };
  says(Format::CP, CoreOptions().rank(25), "CP rank 25 must be from 1 to 24 for a weight of modes [3, 4, 2, 5]");
  says(Format::Tucker, CoreOptions().ranks({3, 5, 2, 5}), "Tucker rank 5 at place 1 must be from 1 to 4");
  says(Format::Tucker, CoreOptions().ranks({3, 3}), "need 4 ranks, got [3, 3]");
  says(Format::TensorTrain, CoreOptions().ranks({3, 0, 2}), "TensorTrain rank 0 at place 1 must be from 1 to 10");
  says(Format::TensorTrain, CoreOptions().ranks({1, 8, 2}),
       "TensorTrain rank 8 at place 1 must be from 1 to 4 behind a rank of 1");
  says(Format::TensorRing, CoreOptions().ranks({1, 1, 11, 1}), "TensorRing rank 11 at place 2 must be from 1 to 10");
  says(Format::TensorRing, CoreOptions().compression(50), "a compression of 50 is out of reach");
  says(Format::TensorRing, CoreOptions().compression(50), "rank 1 compresses by 8.57143");
  says(Format::CP, CoreOptions(), "needs one of rank, ranks and compression, got 0");
  says(Format::CP, CoreOptions().rank(1).compression(2), "compression, got 2");
  says(Format::CP, CoreOptions().rank(-1), "rank must be at least 1, got -1");
  says(Format::CP, CoreOptions().compression(-2), "compression must be over 0, got -2");
  says(Format::CP, CoreOptions().rank(1).modes(5), "1 to 4 modes, got 5");
  says(Format::CP, CoreOptions().rank(1).gain(-1), "gain must be finite and at least 0, got -1");
}

}  // namespace
}  // namespace steppe::tensorized
