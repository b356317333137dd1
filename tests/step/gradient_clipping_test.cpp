// SPDX-License-Identifier: MIT
#include <ATen/ops/equal.h>
#include <ATen/ops/sparse_coo_tensor.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/nn/utils/clip_grad.h>

#include <limits>

#include <steppe/step/gradient_clipping.hpp>

#include "../errors.hpp"

namespace steppe::step {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<at::Tensor> params_with_gradients(at::ScalarType type = at::kFloat) {
  std::vector<at::Tensor> params;
  for (const double scale : {3.0, -0.25, 40.0}) {
    at::Tensor param = at::tensor({1.0, 2.0, 3.0, 4.0}).to(type).view({2, 2}).set_requires_grad(true);
    param.mutable_grad() = at::tensor({0.5, -1.5, 0.125, 2.0}).to(type).view({2, 2}) * scale;
    params.push_back(param);
  }
  return params;
}

std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor>& params) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& param : params) gradients.push_back(param.grad().clone());
  return gradients;
}

TEST(GradientClipping, IsLibTorchsOwnToTheLastBit) {
  for (const double norm_type : {1.0, 2.0, 3.0, kInfinity})
    for (const double max_norm : {0.5, 1e6}) {
      std::vector<at::Tensor> params = params_with_gradients();
      std::vector<at::Tensor> gradients = gradients_of(params);
      GradientClipping clipping;
      clipping.norm(max_norm, norm_type);
      const at::Tensor norm = clipping.clip(gradients);
      EXPECT_FLOAT_EQ(norm.item<float>(),
                      static_cast<float>(torch::nn::utils::clip_grad_norm_(params, max_norm, norm_type)));
      for (size_t i = 0; i < params.size(); ++i) EXPECT_TRUE(at::equal(gradients[i], params[i].grad()));
    }
  std::vector<at::Tensor> params = params_with_gradients();
  std::vector<at::Tensor> gradients = gradients_of(params);
  GradientClipping clipping;
  clipping.value(1.25);
  EXPECT_FALSE(clipping.clip(gradients).defined());
  torch::nn::utils::clip_grad_value_(params, 1.25);
  for (size_t i = 0; i < params.size(); ++i) EXPECT_TRUE(at::equal(gradients[i], params[i].grad()));
}

TEST(GradientClipping, LeavesGradientsWhoseNormIsNotFinite) {
  for (const double bad : {kInfinity, std::numeric_limits<double>::quiet_NaN()}) {
    std::vector<at::Tensor> gradients = gradients_of(params_with_gradients());
    gradients[1][0][0] = bad;
    const std::vector<at::Tensor> before = {gradients[0].clone(), gradients[2].clone()};
    GradientClipping clipping;
    clipping.norm(0.1, 2.0);
    EXPECT_FALSE(clipping.clip(gradients).isfinite().item<bool>());
    EXPECT_TRUE(at::equal(gradients[0], before[0]));
    EXPECT_TRUE(at::equal(gradients[2], before[1]));
  }
}

TEST(GradientClipping, AddsUpHalvesInSinglePrecision) {
  // 200^2 * 4 is beyond half's largest number.
  std::vector<at::Tensor> gradients = {at::tensor({200.0, 200.0, 200.0, 200.0}).to(at::kHalf)};
  GradientClipping clipping;
  clipping.norm(4.0, 2.0);
  EXPECT_FLOAT_EQ(clipping.clip(gradients).item<float>(), 400.0F);
  EXPECT_NEAR(gradients[0][0].item<double>(), 2.0, 2e-3);
}

TEST(GradientClipping, ClampsHalves) {
  std::vector<at::Tensor> gradients = {at::tensor({-3.0, -0.5, 0.1, 70000.0}).to(at::kHalf)};
  const std::vector<at::Tensor> held = gradients;
  GradientClipping clipping;
  clipping.value(0.1);
  clipping.clip(gradients);
  EXPECT_TRUE(at::equal(held[0], at::tensor({-0.1, -0.1, 0.1, 0.1}).to(at::kHalf))) << held[0];
}

TEST(GradientClipping, TakesSparseGradients) {
  const at::Tensor index = at::tensor({1, 1, 3}).to(at::kLong).view({1, 3});
  GradientClipping clipping;
  clipping.norm(1.0, 2.0);
  // Row 1 is given twice: 3 in all.
  std::vector<at::Tensor> gradients = {at::sparse_coo_tensor(index, at::tensor({1.0, 2.0, 4.0}), {5})};
  EXPECT_DOUBLE_EQ(clipping.clip(gradients).item<double>(), 5.0);
  EXPECT_NEAR(gradients[0].to_dense()[3].item<double>(), 0.8, 1e-6);
  GradientClipping range;
  range.value(2.5);
  gradients = {at::sparse_coo_tensor(index, at::tensor({1.0, 2.0, 4.0}), {5})};
  range.clip(gradients);
  EXPECT_TRUE(at::equal(gradients[0].to_dense(), at::tensor({0.0, 2.5, 0.0, 2.5, 0.0})));
}

TEST(GradientClipping, RefusesWhatHasNoMeaning) {
  GradientClipping clipping;
  EXPECT_NE(message_of([&] { clipping.norm(0.0, 2.0); }).find("max_norm over 0, got 0"), std::string::npos);
  EXPECT_NE(message_of([&] { clipping.norm(std::nan(""), 2.0); }).find("max_norm"), std::string::npos);
  EXPECT_NE(message_of([&] { clipping.norm(1.0, -1.0); }).find("norm_type"), std::string::npos);
  EXPECT_NE(message_of([&] { clipping.value(-2.0); }).find("limit over 0, got -2"), std::string::npos);
  clipping.value(1.0);
  EXPECT_NE(message_of([&] { clipping.check(at::tensor({1.0}).to(at::kComplexFloat)); }).find("complex"),
            std::string::npos);
}

}  // namespace
}  // namespace steppe::step
