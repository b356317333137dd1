// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/core_network.hpp>
#include <torch/types.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "formats.hpp"
#include "random_tensors.hpp"

namespace steppe::tensorized {
namespace {

using Sizes = std::vector<int64_t>;

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

/// Gradient descent on |tensor - target|^2 from the cores of a tensor: the loss falls, and for every rank
/// each of its values moves in every core.
void expect_that_all_learns(const CoreNetwork& made, const at::Tensor& from) {
  std::vector<at::Tensor> cores = made.decompose(from, 100, 1e-8), before;
  for (size_t k = 0; k < cores.size(); ++k) {
    ASSERT_EQ(cores[k].sizes(), made.shapes()[k]);
    before.push_back(cores[k].clone());
    cores[k].requires_grad_();
  }
  const at::Tensor noise = random(made.modes(), 9), target = from + noise / frobenius(noise);
  double first = 0.0, loss = 0.0;
  for (int step = 0; step < 15; ++step) {
    const at::Tensor error = (made.full(cores) - target).square().sum();
    (step == 0 ? first : loss) = error.item<double>();
    error.backward();
    const c10::NoGradGuard no_grad;
    for (at::Tensor& core : cores) {
      core.sub_(core.grad() * 0.03);
      core.mutable_grad().reset();
    }
  }
  EXPECT_LT(loss, 0.99 * first) << made.format();
  for (size_t k = 0; k < cores.size(); ++k)
    for (int64_t d = 0; d < cores[k].dim(); ++d) {
      if (made.letters(k)[static_cast<size_t>(d)] >= 'a') continue;  // a mode
      const at::Tensor moved = (cores[k].detach() - before[k]).transpose(0, d).reshape({cores[k].size(d), -1});
      EXPECT_GT(moved.norm(2, {1}).min().item<double>(), 1e-4) << made.format() << " core " << k << " dimension " << d;
    }
}

TEST(CoreNetwork, EveryRankOfADecomposedZeroTensorLearns) {
  for (const Format format : kFormats) {
    const CoreNetwork made = network(format, CoreOptions().rank(3));
    expect_that_all_learns(made, torch::zeros(made.modes(), at::kDouble));
    EXPECT_TRUE(made.full(made.decompose(torch::zeros(made.modes()), 5, 1e-8)).eq(0).all().item<bool>()) << format;
  }
}

TEST(CoreNetwork, EveryRankOfADecomposedTensorOfLowerRankLearns) {
  const CPTensor one{{random({3, 1}), random({4, 1}, 2), random({2, 1}, 3), random({5, 1}, 4)}};
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const at::Tensor tensor = (one.full() / frobenius(one.full())).to(type);
    for (const Format format : kFormats) {
      const CoreNetwork made = network(format, CoreOptions().rank(3));
      EXPECT_LT(distance(made.full(made.decompose(tensor, 100, 1e-8)), tensor.to(at::kDouble)),
                type == at::kDouble ? 1e-13 : 1e-6)
          << format;
      expect_that_all_learns(made, tensor.to(at::kDouble));
    }
  }
}

TEST(CoreNetwork, TakesRanksThatNoTensorNeedsAndTheyLearn) {
  const at::Tensor noise = random({3, 4, 2, 5}), tensor = noise / frobenius(noise);
  for (const auto& [format, ranks] : std::vector<std::pair<Format, Sizes>>{{Format::CP, {26}},
                                                                           {Format::Tucker, {4, 6, 2, 7}},
                                                                           {Format::TensorTrain, {5, 14, 7}},
                                                                           {Format::TensorRing, {2, 7, 12, 8}}}) {
    const CoreNetwork made = network(format, CoreOptions().ranks(ranks));
    EXPECT_EQ(made.ranks(), ranks);
    EXPECT_LT(distance(made.full(made.decompose(tensor, 100, 1e-8)), tensor), 1e-13) << format;
    expect_that_all_learns(made, tensor);
  }
  const at::Tensor weight = random({16, 32, 3, 3});
  const CoreNetwork two = network(Format::Tucker, CoreOptions().ranks({5, 10, 1, 1}), {16, 32, 3, 3});
  EXPECT_LT(distance(two.full(two.decompose(weight, 25, 1e-10)), tucker(weight, {5, 5, 1, 1}).full()), 1e-12);
  EXPECT_EQ(network(Format::CP, CoreOptions().rank(25)).ranks(), Sizes{25});
  EXPECT_EQ(network(Format::TensorTrain, CoreOptions().rank(45), {16, 16, 16, 16}).ranks(), (Sizes{16, 45, 16}));
}

TEST(CoreNetwork, ImpossibleRanksAndTargetsAreNamed) {
  const auto says = [](Format format, const CoreOptions& options, const char* words) {
    expect_error([&] { network(format, options); }, words);
  };
  says(Format::Tucker, CoreOptions().ranks({3, 3}), "need 4 ranks, got [3, 3]");
  says(Format::TensorTrain, CoreOptions().ranks({3, 0, 2}), "TensorTrain rank 0 at place 1 must be at least 1");
  says(Format::TensorRing, CoreOptions().compression(50), "a compression of 50 is out of reach");
  says(Format::TensorRing, CoreOptions().compression(50), "rank 1 compresses by 8.57143");
  says(Format::CP, CoreOptions(), "needs one of rank, ranks and compression, got 0");
  says(Format::CP, CoreOptions().rank(1).compression(2), "compression, got 2");
  says(Format::CP, CoreOptions().rank(-1), "rank must be at least 1, got -1");
  says(Format::CP, CoreOptions().compression(-2), "compression must be over 0, got -2");
  says(Format::CP, CoreOptions().rank(1).modes(7), "1 to 6 modes, got 7");
  says(Format::CP, CoreOptions().rank(1).gain(-1), "gain must be finite and at least 0, got -1");
}

}  // namespace
}  // namespace steppe::tensorized
