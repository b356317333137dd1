// SPDX-License-Identifier: MIT
#include "tucker_model.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "../../errors.hpp"

namespace completion {
namespace {

void expect_close(const at::Tensor& a, const at::Tensor& b) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_TRUE(at::allclose(a, b, 1e-12, 1e-13)) << (a - b).abs().max().item<double>();
}

TEST(TuckerModel, EqualsItsDefinition) {
  const TuckerModel three({7, 3, 5}, {4, 3, 2}, 0.3, 1);
  expect_close(three.full(), at::einsum("abc,ia,jb,kc->ijk", three.cores()));
  const TuckerModel two({6, 9}, {2, 3}, 0.3, 1);
  expect_close(two.full(), at::einsum("ab,ia,jb->ij", two.cores()));
  const TuckerModel four({2, 6, 3, 4}, {2, 1, 3, 2}, 0.3, 1);
  expect_close(four.full(), at::einsum("abcd,ia,jb,kc,ld->ijkl", four.cores()));
}

TEST(TuckerModel, HasTheGradientOfItsDefinition) {
  const TuckerModel model({7, 3, 5}, {4, 3, 2}, 0.3, 1);
  const at::Tensor upstream = at::randn({7, 3, 5}, at::kDouble);
  const auto gradients = torch::autograd::grad({(model.full() * upstream).sum()}, model.cores());
  const auto expected =
      torch::autograd::grad({(at::einsum("abc,ia,jb,kc->ijk", model.cores()) * upstream).sum()}, model.cores());
  for (size_t k = 0; k < gradients.size(); ++k) expect_close(gradients[k], expected[k]);
}

TEST(TuckerModel, DrawsItsCoresAnewFromASeed) {
  const TuckerModel once({40, 30}, {20, 10}, 0.3, 5), again({40, 30}, {20, 10}, 0.3, 5);
  for (size_t k = 0; k < 3; ++k) EXPECT_TRUE(at::equal(once.cores()[k], again.cores()[k]));
  EXPECT_FALSE(at::equal(once.cores()[0], TuckerModel({40, 30}, {20, 10}, 0.3, 6).cores()[0]));
  // 800 normal draws: their deviation is within 10 % of 0.3 except once in many thousand seeds, and this is one seed.
  EXPECT_NEAR(once.cores()[1].std().item<double>(), 0.3, 0.03);
}

TEST(TuckerModel, RefusesRanksThatDoNotFit) {
  const auto refusal = [](std::vector<int64_t> shape, std::vector<int64_t> ranks) {
    return message_of([&] { check_ranks(shape, ranks, "--rank"); });
  };
  EXPECT_EQ(refusal({4, 5}, {4, 5}), "");
  EXPECT_NE(refusal({4, 5}, {4}).find("--rank: 1 ranks for a tensor of 2 modes"), std::string::npos);
  EXPECT_NE(refusal({4, 5}, {4, 6}).find("mode 2 must be from 1 to its size 5, not 6"), std::string::npos);
  EXPECT_NE(refusal({4, 5}, {0, 5}).find("mode 1 must be from 1"), std::string::npos);
  EXPECT_NE(refusal({4}, {2}).find("at least two modes"), std::string::npos);
}

}  // namespace
}  // namespace completion
