// The CUDA kernels, run on the host, against the definition in ATen operations.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/kernels/reference.hpp>
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "host_model.hpp"
#include "model.hpp"

namespace steppe::kernels::cuda {
namespace {

at::ScalarType dtype_of(Format format) {
  return format == Format::Float32 ? at::kFloat : format == Format::BFloat16 ? at::kBFloat16 : at::kHalf;
}

at::Tensor tensor_of(const std::vector<float>& x, const Layer& layer) {
  const int64_t row = layer.row > 0 ? layer.row : 1;
  return torch::tensor(x, at::kFloat).view({layer.size / row, row}).to(dtype_of(layer.format));
}

AscentTask task_of(const Numbers& numbers) {
  const Layer& layer = numbers.layer;
  AscentTask task;
  task.param = tensor_of(numbers.w, layer);
  task.direction = tensor_of(numbers.g, layer);
  task.destination = at::empty_like(task.param);
  task.recipe.centralize.on = layer.row > 0;
  task.recipe.filter.on = layer.filtered;
  task.recipe.filter.level = layer.quantile;
  task.recipe.scale.on = layer.scaled;
  task.recipe.scale.convention = layer.eta > 0.0 ? ScaleConvention::Paper : ScaleConvention::Davda54;
  task.recipe.scale.eta = layer.eta;
  task.recipe.norm = layer.norm;
  task.rho = layer.rho;
  task.in_norm = layer.counted;
  return task;
}

/// One unit in the last place for 16-bit numbers, whose norms older versions of LibTorch compute differently; a few for
/// float32 directions that are centralized or scaled, where a factor may be its neighbour.
void expect_close(const at::Tensor& ours, const AscentTask& task) {
  const double ulp = task.param.scalar_type() == at::kFloat  ? 0x1p-23
                     : task.param.scalar_type() == at::kHalf ? 0x1p-10
                                                             : 0x1p-7;
  const at::Tensor expected = (task.moved ? task.destination : task.param).to(at::kDouble).flatten();
  const at::Tensor w = task.param.to(at::kDouble).flatten();
  const at::Tensor limit = (w.abs() + 3 * (expected - w).abs()) * ulp + 0x1p-24 * (ulp > 1e-4) + 0x1p-149;
  EXPECT_TRUE(((ours.to(at::kDouble) - expected).abs() <= limit).all().item<bool>());
}

TEST(CudaKernels, AgreeWithTheReferenceOfEveryRecipe) {
  for (const Asked& asked : every_recipe())
    for (const Format format : {Format::Float32, Format::BFloat16, Format::Half})
      for (uint64_t seed = 21; seed <= 26; ++seed) {
        SCOPED_TRACE(asked.name + ", " + name_of(format) + ", seed " + std::to_string(seed));
        const auto model = random_model(asked, format, seed);
        std::vector<AscentTask> tasks;
        for (const Numbers& numbers : model) tasks.push_back(task_of(numbers));
        const AscentResult result = reference::ascend(tasks);
        const Outcome ours = HostModel(model, Cut(), seed).ascend();
        ASSERT_EQ(ours.finite, result.finite.item<bool>());
        EXPECT_NEAR(ours.gradient_norm, result.gradient_norm.item<double>(), 1e-6 * ours.gradient_norm);
        EXPECT_NEAR(ours.perturbation_norm, result.perturbation_norm.item<double>(), 1e-3 * ours.perturbation_norm);
        EXPECT_NEAR(ours.kept_share, result.kept_share.item<double>(), 1e-12);
        for (size_t i = 0; i < model.size(); ++i) expect_close(torch::tensor(ours.moved[i], at::kFloat), tasks[i]);
      }
}

}  // namespace
}  // namespace steppe::kernels::cuda
