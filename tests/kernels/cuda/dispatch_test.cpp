// Ascents over CUDA tensors through the common entry point, against the definition on the same device.
// SPDX-License-Identifier: MIT
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>
#include <steppe/kernels/dispatch.hpp>
#include <torch/cuda.h>
#include <torch/types.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace steppe::kernels {
namespace {

Recipe recipe_of(bool centralized, bool filtered, bool scaled) {
  Recipe recipe;
  recipe.centralize.on = centralized;
  recipe.filter.on = filtered;
  recipe.scale.on = scaled;
  return recipe;
}

/// Weights and gradients in layouts of every kind.
std::vector<std::pair<at::Tensor, at::Tensor>> model_on(at::Device device, at::ScalarType dtype) {
  torch::manual_seed(1);
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  std::vector<std::pair<at::Tensor, at::Tensor>> model;
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{}, {0, 3}, {1}, {70}, {33, 17}, {16, 8, 3, 3}, {5, 20001}, {300, 400}})
    model.emplace_back(torch::randn(shape, options), torch::randn(shape, options));
  const auto channels_last = [](const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); };
  model.emplace_back(channels_last(torch::randn({8, 6, 5, 5}, options)),
                     channels_last(torch::randn({8, 6, 5, 5}, options)));
  model.emplace_back(torch::randn({20, 30}, options).t(), torch::randn({30, 20}, options));
  model.emplace_back(torch::randn({63}, options).slice(0, 3).view({6, 10}),
                     torch::randn({61}, options).slice(0, 1).view({6, 10}));
  return model;
}

struct Ascended {
  std::vector<at::Tensor> moved;
  AscentResult result;
};

Ascended ascend(Workspace& workspace, const std::vector<std::pair<at::Tensor, at::Tensor>>& model, const Recipe& recipe,
                bool fused) {
  std::vector<AscentTask> tasks;
  for (const auto& [w, g] : model) {
    AscentTask task;
    task.param = w;
    task.direction = g;
    task.destination = at::empty_like(w);
    task.recipe = recipe;
    task.rho = 0.5;
    task.fused = fused;
    tasks.push_back(task);
  }
  Ascended ascended{{}, workspace.ascend(tasks)};
  for (const AscentTask& task : tasks) ascended.moved.push_back(task.destination);
  return ascended;
}

TEST(CudaDispatch, AgreesWithTheDefinitionInEveryFormatAndLayout_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  Workspace workspace;
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble})
    for (int bits = 0; bits < 8; ++bits) {
      SCOPED_TRACE(std::string(c10::toString(dtype)) + ", recipe " + std::to_string(bits));
      const auto model = model_on(at::kCUDA, dtype);
      const Recipe recipe = recipe_of(bits & 1, bits & 2, bits & 4);
      const Ascended ours = ascend(workspace, model, recipe, true),
                     definition = ascend(workspace, model, recipe, false);
      ASSERT_TRUE(ours.result.finite.item<bool>());
      EXPECT_TRUE(at::allclose(ours.result.layer_gradient_norm, definition.result.layer_gradient_norm, 1e-6));
      EXPECT_TRUE(ours.result.layer_kept_share.equal(definition.result.layer_kept_share));
      const double ulp = dtype == at::kHalf ? 0x1p-10 : dtype == at::kBFloat16 ? 0x1p-7 : 0x1p-23;
      for (size_t i = 0; i < model.size(); ++i)
        EXPECT_TRUE(at::allclose(ours.moved[i].to(at::kDouble), definition.moved[i].to(at::kDouble), 4 * ulp, 4 * ulp))
            << i;
    }
}

TEST(CudaDispatch, AllocatesNothingOnceItKnowsTheTensors_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  Workspace workspace;
  const auto model = model_on(at::kCUDA, at::kFloat);
  ascend(workspace, model, recipe_of(true, true, false), true);
  const int64_t bytes = workspace.bytes();
#ifdef STEPPE_WITH_CUDA
  EXPECT_GT(bytes, 0);
#endif
  ascend(workspace, model, recipe_of(true, true, false), true);
  EXPECT_EQ(workspace.bytes(), bytes);
}

/// A stream of LibTorch's pool, through the interface that all devices have.
c10::Stream another_stream() {
  return c10::impl::VirtualGuardImpl(at::kCUDA).getStreamFromGlobalPool(at::Device(at::kCUDA, 0), false);
}

void expect_same_bits(const Ascended& ours, const Ascended& expected) {
  EXPECT_TRUE(ours.result.gradient_norm.equal(expected.result.gradient_norm));
  for (size_t i = 0; i < ours.moved.size(); ++i) EXPECT_TRUE(ours.moved[i].equal(expected.moved[i])) << i;
}

TEST(CudaDispatch, WaitsForTheCurrentStreamAndNoOther_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  const Recipe recipe = recipe_of(true, true, false);
  for (const bool fused : {true, false}) {
    Workspace workspace;
    auto model = model_on(at::kCUDA, at::kFloat);
    const Ascended expected = ascend(workspace, model, recipe, fused);
    std::vector<at::Tensor> gradients;
    for (auto& [w, g] : model) {
      gradients.push_back(g.clone());
      g.zero_();
    }
    at::Tensor busy = torch::eye(2048, at::kCUDA);
    torch::cuda::synchronize();
    const c10::StreamGuard guard(another_stream());
    // The gradients are computed only once the stream has finished this.
    for (int i = 0; i < 30; ++i) busy = at::matmul(busy, busy);
    for (size_t i = 0; i < gradients.size(); ++i) model[i].second.copy_(gradients[i] * busy[0][0]);
    const Ascended ours = ascend(workspace, model, recipe, fused);
    torch::cuda::synchronize();
    expect_same_bits(ours, expected);
  }
}

TEST(CudaDispatch, ServesTwoThreadsOnTwoStreams_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  const std::vector<Recipe> recipes = {recipe_of(true, true, false), recipe_of(false, true, true)};
  std::vector<std::vector<std::pair<at::Tensor, at::Tensor>>> models;
  std::vector<Ascended> expected;
  for (const Recipe& recipe : recipes) {
    Workspace workspace;
    models.push_back(model_on(at::kCUDA, at::kFloat));
    expected.push_back(ascend(workspace, models.back(), recipe, true));
  }
  torch::cuda::synchronize();
  constexpr int kAgain = 50;
  std::vector<std::vector<Ascended>> seen(2);
  std::vector<std::thread> threads;
  for (size_t k = 0; k < 2; ++k)
    threads.emplace_back([&, k] {
      const c10::StreamGuard guard(another_stream());
      Workspace workspace;
      for (int i = 0; i < kAgain; ++i) seen[k].push_back(ascend(workspace, models[k], recipes[k], true));
    });
  for (std::thread& thread : threads) thread.join();
  torch::cuda::synchronize();
  for (size_t k = 0; k < 2; ++k) {
    ASSERT_EQ(seen[k].size(), static_cast<size_t>(kAgain));
    for (const Ascended& ours : seen[k]) expect_same_bits(ours, expected[k]);
  }
}

TEST(CudaDispatch, NothingIsCapturedOutsideOfACapture_CUDA) {
  EXPECT_FALSE(is_capturing(at::kCPU));
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  EXPECT_FALSE(is_capturing(at::Device(at::kCUDA, 0)));
}

}  // namespace
}  // namespace steppe::kernels
