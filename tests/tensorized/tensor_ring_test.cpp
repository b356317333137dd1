// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/tensor_ring.hpp>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "random_tensors.hpp"

namespace steppe::tensorized {
namespace {

TEST(TensorRing, IsTheTraceOfAProductOfMatrices) {
  const TensorRing ring{{random({2, 3, 3}), random({3, 4, 2}, 2), random({2, 5, 2}, 3)}};
  EXPECT_LT(distance(ring.full(), at::einsum("xar,rbs,scx->abc", ring.cores)), 1e-14);
  EXPECT_EQ(ring.ranks(), (std::vector<int64_t>{2, 3, 2}));
  const at::Tensor one = random({3, 4, 3});
  EXPECT_LT(distance(TensorRing{{one}}.full(), at::einsum("xax->a", {one})), 1e-14);
}

TEST(TensorRing, RebuildsATensorAtFullRank) {
  for (const auto& shape : {std::vector<int64_t>{5}, std::vector<int64_t>{4, 3}, std::vector<int64_t>{3, 5, 2},
                            std::vector<int64_t>{2, 3, 1, 4, 3}, std::vector<int64_t>{9, 2, 3}}) {
    const at::Tensor tensor = random(shape);
    const std::vector<int64_t> ranks(shape.size(), tensor.numel());
    EXPECT_LT(distance(tensor_ring(tensor, ranks).full(), tensor), 1e-13) << at::IntArrayRef(shape);
  }
}

TEST(TensorRing, SplitsTheFirstRankAndRebuildsWhereNothingIsDiscarded) {
  const at::Tensor tensor = random({6, 4, 5});
  TensorRing ring;
  expect_warning(
      [&] {
        ring = tensor_ring(tensor, {3, 2, 100});
      },
      "tensor-ring ranks [3, 2, 100] were requested for a tensor of shape [6, 4, 5]; [3, 2, 8] are enough");
  EXPECT_EQ(ring.ranks(), (std::vector<int64_t>{3, 2, 8}));
  EXPECT_LT(distance(ring.full(), tensor), 1e-13);
  // 6 components on 4 columns: 2 rows, 2 places empty.
  const TensorRing uneven = tensor_ring(tensor, {3, 4, 100});
  EXPECT_EQ(uneven.ranks(), (std::vector<int64_t>{2, 4, 10}));
  EXPECT_LT(distance(uneven.full(), tensor), 1e-13);
}

TEST(TensorRing, TheErrorOfTrSvdIsThatOfItsDecompositions) {
  const at::Tensor tensor = random({6, 4, 5, 3});
  for (const auto& ranks :
       {std::vector<int64_t>{2, 2, 3, 4}, std::vector<int64_t>{1, 3, 3, 2}, std::vector<int64_t>{3, 1, 4, 4}}) {
    const TensorRing ring = detail::ring_by_svd(tensor, ranks, 0);
    EXPECT_EQ(ring.ranks(), ranks);
    const double first = discarded(tensor, 1, ranks[0] * ranks[1]);
    // What remains once the first core, whose columns are orthonormal, is taken out: [r_1, d_2, d_3, d_4, r_0].
    const at::Tensor rest = at::einsum("xar,abcd->rbcdx", {ring.cores[0], tensor});
    const double bound = first + discarded(rest, 2, ranks[2]) + discarded(rest, 3, ranks[3]);
    const double error = std::pow(frobenius(ring.full() - tensor), 2);
    EXPECT_LE(error, bound * (1.0 + 1e-12));
    EXPECT_GE(error, (first + discarded(rest, 2, ranks[2])) * (1.0 - 1e-12));
    double best = error;
    for (size_t mode = 1; mode < 4; ++mode)
      best = std::min(best, std::pow(frobenius(detail::ring_by_svd(tensor, ranks, mode).full() - tensor), 2));
    const TensorRing unswept = tensor_ring(tensor, ranks, TensorRingOptions().sweeps(0));
    EXPECT_NEAR(std::pow(unswept.error * frobenius(tensor), 2) / best, 1.0, 1e-12);
  }
}

TEST(TensorRing, IsFoundThroughNoise) {
  const TensorRing made{{random({4, 8, 4}), random({4, 16, 4}, 2), random({4, 16, 4}, 3), random({4, 8, 4}, 4)}};
  const at::Tensor clean = made.full(), noise = random({8, 16, 16, 8}, 5);
  const at::Tensor tensor = clean + noise * (0.1 * frobenius(clean) / frobenius(noise));
  // The tensor's own ring is 0.1 / sqrt(1.01) away; a better one fits some of the noise.
  const TensorRing found = tensor_ring(tensor, {4, 4, 4, 4});
  EXPECT_LT(found.error, 0.0995);
  EXPECT_GT(found.error, 0.09);
  EXPECT_NEAR(found.error, distance(found.full(), tensor), 1e-14);
  EXPECT_EQ(found.ranks(), made.ranks());
  EXPECT_LT(found.sweeps, 50);
  EXPECT_GT(distance(tensor_ring(tensor, {4, 4, 4, 4}, TensorRingOptions().sweeps(0)).full(), tensor), 0.3);
}

TEST(TensorRing, BeginsAtTheModeThatLosesLeast) {
  const at::Tensor tensor = random({6, 2, 3, 2, 6});
  const TensorRing ring = tensor_ring(tensor, {12, 2, 1, 3, 6});
  EXPECT_LT(distance(ring.full(), tensor), 1e-13);  // exact from mode 1 on, not from mode 0
  EXPECT_EQ(ring.sweeps, 0);
}

TEST(TensorRing, SweepsNeverRaiseTheErrorAlsoWithRanksThatNothingNeeds) {
  const at::Tensor tensor = random({4, 3, 5});
  for (const auto& ranks :
       {std::vector<int64_t>{2, 1, 2}, std::vector<int64_t>{1, 3, 1}, std::vector<int64_t>{6, 2, 1}}) {
    double before = frobenius(tensor);
    for (int64_t sweeps = 0; sweeps < 6; ++sweeps) {
      const TensorRing ring = tensor_ring(tensor, ranks, TensorRingOptions().sweeps(sweeps).tolerance(0.0));
      const double error = frobenius(ring.full() - tensor);
      EXPECT_LE(error, before * (1.0 + 1e-12));
      before = error;
    }
  }
  const TensorRing two = tensor_ring(random({7, 5}), {1, 2});
  EXPECT_NEAR(std::pow(two.error * frobenius(random({7, 5})), 2) / discarded(random({7, 5}), 1, 2), 1.0, 1e-12);
}

TEST(TensorRing, WithAClosingRankOfOneIsATensorTrain) {
  const at::Tensor tensor = random({4, 3, 5});
  const at::Tensor train = tensor_train(tensor, {3, 2}).full();
  EXPECT_LT(distance(detail::ring_by_svd(tensor, {1, 3, 2}, 0).full(), train), 1e-13);
  EXPECT_LT(tensor_ring(tensor, {1, 3, 2}).error, distance(train, tensor));
}

TEST(TensorRing, ImpossibleRanksAreNamed) {
  const at::Tensor tensor = random({4, 3, 5});
  expect_error([&] { tensor_ring(tensor, {2, 0, 2}); }, "tensor-ring rank 0 before mode 1 must be at least 1");
  expect_error([&] { tensor_ring(tensor, {2, 2, 2}, TensorRingOptions().sweeps(-1)); }, "got -1");
  expect_error([&] { tensor_ring(tensor, {2, 2}); }, "of 3 modes needs as many ranks, got [2, 2]");
}

}  // namespace
}  // namespace steppe::tensorized
