// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/tensor_ring.hpp>
#include <torch/types.h>

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
  const TensorRing ring = tensor_ring(tensor, {3, 2, 100});
  EXPECT_EQ(ring.ranks(), (std::vector<int64_t>{3, 2, 8}));
  EXPECT_LT(distance(ring.full(), tensor), 1e-13);
  // 6 components on 4 columns: 2 rows, 2 places empty.
  const TensorRing uneven = tensor_ring(tensor, {3, 4, 100});
  EXPECT_EQ(uneven.ranks(), (std::vector<int64_t>{2, 4, 10}));
  EXPECT_LT(distance(uneven.full(), tensor), 1e-13);
}

TEST(TensorRing, ItsErrorIsThatOfItsDecompositions) {
  const at::Tensor tensor = random({6, 4, 5, 3});
  for (const auto& ranks :
       {std::vector<int64_t>{2, 2, 3, 4}, std::vector<int64_t>{1, 3, 3, 2}, std::vector<int64_t>{3, 1, 4, 4}}) {
    const TensorRing ring = tensor_ring(tensor, ranks);
    EXPECT_EQ(ring.ranks(), ranks);
    const double first = discarded(tensor, 1, ranks[0] * ranks[1]);
    // What remains once the first core, whose columns are orthonormal, is taken out: [r_1, d_2, d_3, d_4, r_0].
    const at::Tensor rest = at::einsum("xar,abcd->rbcdx", {ring.cores[0], tensor});
    const double bound = first + discarded(rest, 2, ranks[2]) + discarded(rest, 3, ranks[3]);
    const double error = std::pow(frobenius(ring.full() - tensor), 2);
    EXPECT_LE(error, bound * (1.0 + 1e-12));
    EXPECT_GE(error, (first + discarded(rest, 2, ranks[2])) * (1.0 - 1e-12));
  }
}

TEST(TensorRing, WithAClosingRankOfOneIsTheTensorTrain) {
  const at::Tensor tensor = random({4, 3, 5});
  EXPECT_LT(distance(tensor_ring(tensor, {1, 3, 2}).full(), tensor_train(tensor, {3, 2}).full()), 1e-13);
}

TEST(TensorRing, ImpossibleRanksAreNamed) {
  const at::Tensor tensor = random({4, 3, 5});
  expect_error([&] { tensor_ring(tensor, {2, 0, 2}); }, "tensor-ring rank 0 before mode 1 must be at least 1");
  expect_error([&] { tensor_ring(tensor, {2, 2}); }, "of 3 modes needs as many ranks, got [2, 2]");
}

}  // namespace
}  // namespace steppe::tensorized
