// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/tensor_train.hpp>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "random_tensors.hpp"

namespace steppe::tensorized {
namespace {

std::vector<int64_t> full_ranks(at::IntArrayRef shape) {
  std::vector<int64_t> ranks;
  int64_t left = 1, right = 1;
  for (const int64_t d : shape) right *= d;
  for (size_t k = 0; k + 1 < shape.size(); ++k) ranks.push_back(std::min(left *= shape[k], right /= shape[k]));
  return ranks;
}

TEST(TensorTrain, IsAProductOfMatrices) {
  const TensorTrain train{{random({1, 2, 3}), random({3, 4, 2}, 2), random({2, 3, 1}, 3)}};
  EXPECT_LT(distance(train.full(), at::einsum("xar,rbs,scy->abc", train.cores)), 1e-14);
  EXPECT_EQ(train.ranks(), (std::vector<int64_t>{3, 2}));
}

TEST(TensorTrain, RebuildsATensorAtFullRank) {
  for (const auto& shape : {std::vector<int64_t>{5}, std::vector<int64_t>{4, 3}, std::vector<int64_t>{3, 5, 2},
                            std::vector<int64_t>{2, 3, 1, 4, 3}}) {
    const at::Tensor tensor = random(shape);
    EXPECT_LT(distance(tensor_train(tensor, full_ranks(shape)).full(), tensor), 1e-13) << at::IntArrayRef(shape);
    EXPECT_LT(distance(tensor_train_within(tensor, 0.0).full(), tensor), 1e-13);
  }
  const at::Tensor single = random({3, 5, 2}).to(at::kFloat);
  EXPECT_LT(distance(tensor_train(single, {3, 2}).full(), single), 1e-6);
}

TEST(TensorTrain, FindsTheRanksThatATensorHas) {
  const TensorTrain made{{random({1, 5, 2}), random({2, 6, 3}, 2), random({3, 4, 1}, 3)}};
  EXPECT_LT(distance(tensor_train(made.full(), {2, 3}).full(), made.full()), 1e-13);
  EXPECT_EQ(tensor_train_within(made.full(), 1e-10).ranks(), (std::vector<int64_t>{2, 3}));
}

TEST(TensorTrain, ItsErrorIsNoLargerThanTheory) {
  const at::Tensor tensor = random({5, 4, 3, 6});
  for (const auto& ranks :
       {std::vector<int64_t>{2, 3, 2}, std::vector<int64_t>{5, 9, 3}, std::vector<int64_t>{1, 1, 1}}) {
    double bound = 0.0, largest = 0.0;
    for (size_t k = 0; k < ranks.size(); ++k) {
      const double lost = discarded(tensor, static_cast<int64_t>(k) + 1, ranks[k]);
      bound += lost;
      largest = std::max(largest, lost);
    }
    const double error = std::pow(frobenius(tensor_train(tensor, ranks).full() - tensor), 2);
    EXPECT_LE(error, bound);
    EXPECT_GE(error, largest * (1.0 - 1e-12));
  }
}

TEST(TensorTrain, KeepsWithinAGivenError) {
  const at::Tensor tensor = random({5, 4, 3, 6});
  int64_t before = tensor.numel() * 10;
  for (const double error : {0.05, 0.3, 0.7}) {
    const TensorTrain train = tensor_train_within(tensor, error);
    EXPECT_LE(distance(train.full(), tensor), error);
    int64_t parameters = 0;
    for (const at::Tensor& core : train.cores) parameters += core.numel();
    EXPECT_LT(parameters, before);
    before = parameters;
  }
  EXPECT_EQ(tensor_train_within(torch::zeros({2, 3, 2}), 0.1).ranks(), (std::vector<int64_t>{1, 1}));
}

TEST(TensorTrain, RanksBeyondWhatAChainNeedsGiveTheSameTensorWithAWarning) {
  TensorTrain train;
  const at::Tensor tensor = random({4, 4, 4, 4});
  expect_warning(
      [&] {
        train = tensor_train(tensor, {15, 15, 15});
      },
      "tensor-train ranks [15, 15, 15] were requested for a tensor of shape [4, 4, 4, 4]; [4, 15, 4] are enough");
  EXPECT_EQ(train.ranks(), (std::vector<int64_t>{4, 15, 4}));
  EXPECT_LT(distance(train.full(), tensor_train(tensor, {4, 15, 4}).full()), 1e-14);
  const at::Tensor small = random({4, 3, 5});
  expect_warning([&] { train = tensor_train(small, {1, 4}); }, "; [1, 3] are enough");
  expect_warning([&] { train = tensor_train(small, {4, 1}); }, "; [3, 1] are enough");
}

TEST(TensorTrain, ImpossibleRanksAreNamed) {
  const at::Tensor tensor = random({4, 3, 5});
  expect_error([&] { tensor_train(tensor, {0, 1}); }, "tensor-train rank 0 between modes 0 and 1 must be at least 1");
  expect_error([&] { tensor_train(tensor, {1, 1, 1}); }, "of 3 modes needs 2 ranks, got [1, 1, 1]");
  expect_error([&] { tensor_train_within(tensor, 1.5); }, "got 1.5");
}

}  // namespace
}  // namespace steppe::tensorized
