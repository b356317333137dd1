// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/sharpness/untouched.hpp>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <stdexcept>

namespace steppe::sharpness {
namespace {

TEST(Untouched, GradientsFlagsAndModesComeBackWhateverEndsTheScope) {
  torch::nn::Sequential model(torch::nn::Linear(2, 2), torch::nn::Linear(2, 1));
  std::vector<at::Tensor> params = model->parameters();
  params[0].mutable_grad() = torch::ones({2, 2});
  const at::Tensor gradient = params[0].grad();
  params[1].requires_grad_(false);
  model[1]->as<torch::nn::Linear>()->eval();
  std::vector<torch::nn::Module*> modules = {model.get()};
  for (const auto& child : model->modules(false)) modules.push_back(child.get());
  try {
    const Untouched held({params[1]}, params, modules);
    EXPECT_TRUE(params[1].requires_grad());
    EXPECT_FALSE(params[0].grad().defined());
    (model[0]->as<torch::nn::Linear>()->forward(torch::ones({3, 2}))).sum().backward();
    EXPECT_TRUE(params[1].grad().defined());
    model->eval();
    throw std::runtime_error("on purpose");
  } catch (const std::runtime_error&) {
  }
  EXPECT_TRUE(params[0].grad().is_same(gradient) && gradient.equal(torch::ones({2, 2})));
  EXPECT_FALSE(params[1].grad().defined());
  EXPECT_FALSE(params[1].requires_grad());
  EXPECT_TRUE(model->is_training() && model[0]->is_training());
  EXPECT_FALSE(model[1]->is_training());
}

}  // namespace
}  // namespace steppe::sharpness
