// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/shift/optimum_shift.hpp>
#include <torch/cuda.h>
#include <torch/types.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>

#include "../allocated_bytes.hpp"
#include "../errors.hpp"

namespace steppe::shift {
namespace {

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(OptimumShift, IsTheLeastNormSolutionWithTheSameOutputs) {
  torch::manual_seed(1);
  torch::nn::Linear layer(8, 3);
  layer->to(at::kDouble);
  const at::Tensor a = torch::randn({5, 8}, at::kDouble), v = layer->weight.detach().t().clone(), bias = layer->bias.detach().clone();
  const at::Tensor outputs = layer->forward(a);
  const void* address = layer->weight.data_ptr();
  const ShiftReport seen = optimum_shift(*layer, a);
  const at::Tensor paper = a.t().mm(torch::linalg_solve(a.mm(a.t()), a.mm(v)));  // full row rank
  EXPECT_LT(difference(layer->weight.t(), paper), 1e-12);
  EXPECT_LT(difference(layer->weight.t(), torch::linalg_pinv(a).mm(a.mm(v))), 1e-12);
  EXPECT_LT(difference(layer->forward(a), outputs), 1e-12);
  EXPECT_TRUE(layer->bias.equal(bias));
  EXPECT_EQ(layer->weight.data_ptr(), address);
  EXPECT_TRUE(seen.moved);
  EXPECT_EQ(seen.rank, 5);
  EXPECT_EQ(seen.rows, 5);
  EXPECT_EQ(seen.features, 8);
  EXPECT_NEAR(seen.norm_before, v.norm().item<double>(), 1e-12);
  EXPECT_NEAR(seen.norm_after, paper.norm().item<double>(), 1e-12);
  EXPECT_LT(seen.norm_after, seen.norm_before);
  EXPECT_LT(seen.output_change, 1e-12);
}

TEST(OptimumShift, AtFullRankNothingIsWritten) {
  torch::manual_seed(2);
  torch::nn::Linear layer(4, 3);
  const at::Tensor before = layer->weight.detach().clone();
  const ShiftReport seen = optimum_shift(*layer, torch::randn({9, 4}));
  EXPECT_FALSE(seen.moved);
  EXPECT_EQ(seen.rank, 4);
  EXPECT_EQ(seen.output_change, 0.0);
  EXPECT_TRUE(layer->weight.equal(before));
}

TEST(OptimumShift, TheBiasTakesPartWhereAskedTo) {
  torch::manual_seed(3);
  torch::nn::Linear layer(6, 2);
  layer->to(at::kDouble);
  const at::Tensor a = torch::randn({4, 6}, at::kDouble), outputs = layer->forward(a).detach();
  const at::Tensor wide = torch::cat({a, torch::ones({4, 1}, at::kDouble)}, 1);
  const ShiftReport seen = optimum_shift(*layer, a, ShiftOptions().include_bias(true));
  const at::Tensor expected = torch::linalg_pinv(wide).mm(outputs);
  EXPECT_LT(difference(layer->weight.t(), expected.slice(0, 0, 6)), 1e-12);
  EXPECT_LT(difference(layer->bias, expected[6]), 1e-12);
  EXPECT_LT(difference(layer->forward(a), outputs), 1e-12);
  EXPECT_EQ(seen.features, 7);
}

TEST(OptimumShift, RidgeShrinksAtFullRankTooAndTellsWhatItCosts) {
  torch::manual_seed(4);
  torch::nn::Linear layer(3, 2);
  layer->to(at::kDouble);
  const at::Tensor a = torch::randn({10, 3}, at::kDouble), v = layer->weight.detach().t().clone();
  const ShiftReport seen = optimum_shift(*layer, a, ShiftOptions().ridge(0.5));
  const at::Tensor expected = a.t().mm(torch::linalg_solve(a.mm(a.t()) + 0.5 * torch::eye(10, at::kDouble), a.mm(v)));
  EXPECT_LT(difference(layer->weight.t(), expected), 1e-12);
  EXPECT_TRUE(seen.moved);
  EXPECT_NEAR(seen.output_change, a.mm(expected - v).square().mean().sqrt().item<double>(), 1e-12);
}

TEST(OptimumShift, RankIsTakenBelowATolerance) {
  const at::Tensor a = torch::diag(torch::tensor({1.0, 0.5, 1e-4}, at::kDouble));
  torch::nn::Linear layer(3, 1);
  EXPECT_EQ(optimum_shift(*layer, a).rank, 3);
  EXPECT_EQ(optimum_shift(*layer, a, ShiftOptions().rank_tolerance(1e-3)).rank, 2);
  EXPECT_EQ(layer->weight[0][2].item<double>(), 0.0);
}

TEST(OptimumShift, LowRankIsSeenThroughTheRoundingOfTheInputsType) {
  torch::manual_seed(8);
  const at::Tensor low = torch::randn({500, 10}).mm(torch::randn({10, 50})), full = torch::randn({500, 50});
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    torch::nn::Linear layer(50, 3), same(50, 3);
    const at::Tensor inputs = low.to(type), outputs = layer->forward(inputs.to(at::kFloat)).detach();
    const ShiftReport seen = optimum_shift(*layer, inputs);
    // What float32 rounds away in the product is kept in float64.
    EXPECT_EQ(seen.rank, type == at::kDouble ? 50 : 10) << type;
    EXPECT_EQ(seen.moved, type != at::kDouble);
    // As far as rounding of the inputs leaves them: root mean squares of 3 times 0.004 in bfloat16.
    EXPECT_LT(seen.output_change, type == at::kBFloat16 ? 2e-2 : type == at::kHalf ? 2e-3 : 1e-6) << type;
    EXPECT_FALSE(optimum_shift(*same, full.to(type)).moved) << type;
  }
}

TEST(OptimumShift, LayersInFloat32AreSolvedInFloat64) {
  torch::manual_seed(5);
  torch::nn::Linear layer(torch::nn::LinearOptions(40, 10).bias(false));
  const at::Tensor a = torch::randn({20, 40}) * torch::logspace(0, -3, 40);  // a condition that float32 would feel
  const at::Tensor v = layer->weight.detach().to(at::kDouble).t(), wide = a.to(at::kDouble);
  const at::Tensor expected = torch::linalg_pinv(wide, 1e-13).mm(wide.mm(v));
  optimum_shift(*layer, a.view({4, 5, 40}));  // leading dimensions are rows
  EXPECT_LT(difference(layer->weight.t(), expected), 1e-7);
}

TEST(OptimumShift, ConvolutionsGiveTheSameOutputsWithSmallerWeights) {
  torch::manual_seed(6);
  using torch::nn::Conv2dOptions;
  const std::vector<Conv2dOptions> all = {Conv2dOptions(4, 3, 3).padding(1), Conv2dOptions(4, 3, {3, 2}).stride(2).dilation({1, 2}),
                                          Conv2dOptions(4, 6, 3).groups(2).bias(false), Conv2dOptions(4, 3, 4).padding(torch::kSame)};
  for (size_t i = 0; i < all.size(); ++i)
    for (const bool with_bias : {false, true}) {
      torch::nn::Conv2d layer(all[i]);
      layer->to(at::kDouble);
      const at::Tensor x = torch::randn({1, 4, 4, 4}, at::kDouble);
      const at::Tensor outputs = layer->forward(x).detach();
      const at::Tensor before = layer->weight.detach().clone();
      const ShiftReport seen = optimum_shift(*layer, x, ShiftOptions().include_bias(with_bias));
      EXPECT_TRUE(seen.moved) << i;
      EXPECT_EQ(seen.rank, seen.rows) << i;
      EXPECT_LT(seen.norm_after, seen.norm_before) << i;
      EXPECT_LT(difference(layer->forward(x), outputs), 1e-12) << i;
      EXPECT_FALSE(layer->weight.equal(before)) << i;
      EXPECT_LT(difference(layer->forward(x[0]), outputs[0]), 1e-12) << i;
    }
}

TEST(OptimumShift, ManyPatchesTakeNoMoreMemoryThanSome) {
  torch::manual_seed(9);
  for (const auto& sizes : {std::vector<int64_t>{40, 1, 32, 32}, {1, 1, 200, 200}}) {
    const at::Tensor images = torch::randn(sizes).repeat({1, 16, 1, 1});  // 2.6 MB; the patches in float64: 47 MB
    torch::nn::Conv2d layer(torch::nn::Conv2dOptions(16, 4, 3).padding(1));
    const at::Tensor outputs = layer->forward(images).detach();
    ShiftReport seen;
    // Four blocks of 8 MiB: patches, rows, rows with R above them, and their QR.
    EXPECT_LT(allocated_bytes::peak_of([&] { seen = optimum_shift(*layer, images); }), 32 << 20);
    EXPECT_EQ(seen.rows, sizes[0] * sizes[2] * sizes[3]);
    EXPECT_EQ(seen.rank, 9);  // all channels are the same
    EXPECT_LT(difference(layer->forward(images), outputs), 1e-4);
  }
}

TEST(OptimumShift, AConvolutionOfOnePixelIsALinearLayer) {
  torch::manual_seed(7);
  torch::nn::Conv2d convolution(torch::nn::Conv2dOptions(6, 2, 1));
  torch::nn::Linear linear(6, 2);
  {
    const at::NoGradGuard no_grad;
    linear->weight.copy_(convolution->weight.view({2, 6}));
  }
  const at::Tensor x = torch::randn({2, 6, 1, 2});
  optimum_shift(*convolution, x);
  optimum_shift(*linear, x.permute({0, 2, 3, 1}));
  EXPECT_LT(difference(convolution->weight.view({2, 6}), linear->weight), 1e-7);
}

TEST(OptimumShift, ErrorsNameWhatIsWrongAndNothingIsWritten) {
  torch::nn::Linear layer(3, 2);
  const at::Tensor before = layer->weight.detach().clone();
  const auto complains = [](const std::string& words, auto&& call) {
    const std::string message = message_of(call);
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  complains("a linear layer of 3 features", [&] { optimum_shift(*layer, torch::ones({2, 4})); });
  complains("not finite", [&] { optimum_shift(*layer, torch::full({1, 3}, std::nan(""))); });
  complains("at least one input", [&] { optimum_shift(*layer, torch::ones({0, 3})); });
  complains("got -1", [&] { optimum_shift(*layer, torch::ones({1, 3}), ShiftOptions().ridge(-1.0)); });
  complains("got 1", [&] { optimum_shift(*layer, torch::ones({1, 3}), ShiftOptions().rank_tolerance(1.0)); });
  torch::nn::Conv2d convolution(torch::nn::Conv2dOptions(3, 2, 1)), mirrored(torch::nn::Conv2dOptions(3, 2, 1).padding_mode(torch::kReflect));
  complains("a convolution of 3 channels", [&] { optimum_shift(*convolution, torch::ones({1, 4, 2, 2})); });
  complains("zeros only", [&] { optimum_shift(*mirrored, torch::ones({1, 3, 2, 2})); });
  EXPECT_TRUE(layer->weight.equal(before));
}

TEST(OptimumShift, OnAGpuIsThatOfTheCpu_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  for (const double ridge : {0.0, 0.1})
    for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
      torch::manual_seed(2);
      torch::nn::Linear linear(8, 3);
      torch::nn::Conv2d convolution(torch::nn::Conv2dOptions(4, 6, 3).padding(1).groups(2));
      const at::Tensor rows = torch::randn({5, 8}, type), images = torch::randn({1, 4, 3, 3}, type);
      const ShiftOptions options = ShiftOptions().ridge(ridge).include_bias(true);
      const auto expect_the_same = [&](auto& layer, const at::Tensor& inputs) {
        layer->to(type);
        const auto there =
            std::dynamic_pointer_cast<typename std::decay_t<decltype(*layer)>>(layer->clone(at::Device(at::kCUDA)));
        const ShiftReport theirs = optimum_shift(*layer, inputs, options);
        const ShiftReport ours = optimum_shift(*there, inputs.to(at::kCUDA), options);
        EXPECT_EQ(ours.rank, theirs.rank);
        EXPECT_EQ(ours.moved, theirs.moved);
        EXPECT_NEAR(ours.norm_after, theirs.norm_after, 1e-8);
        EXPECT_TRUE(there->weight.is_cuda());
        EXPECT_LT(difference(there->weight.cpu(), layer->weight), type == at::kDouble ? 1e-8 : 1e-6);
        EXPECT_LT(difference(there->bias.cpu(), layer->bias), type == at::kDouble ? 1e-8 : 1e-6);
      };
      expect_the_same(linear, rows);
      expect_the_same(convolution, images);
    }
}

TEST(OptimumShift, OfAConvolutionKeepsOutputsWhateverItsPaddingStrideAndDilation) {
  torch::manual_seed(21);
  const at::Tensor images = torch::randn({1, 3, 5, 7}, at::kDouble);
  const auto check = [&](const torch::nn::Conv2dOptions& options) {
    torch::nn::Conv2d conv(options);
    conv->to(at::kDouble);
    const at::Tensor before = conv(images).detach();
    const ShiftReport report = optimum_shift(*conv, images);
    EXPECT_TRUE(at::allclose(conv(images), before, 1e-9, 1e-9));
    EXPECT_EQ(report.rows, before.size(2) * before.size(3));
    EXPECT_TRUE(report.moved);
  };
  check(torch::nn::Conv2dOptions(3, 2, {4, 6}).padding(torch::kSame));
  check(torch::nn::Conv2dOptions(3, 2, {4, 5}).padding(torch::kSame).dilation({3, 1}));
  check(torch::nn::Conv2dOptions(3, 2, 3).stride({2, 3}).padding({1, 0}));
}

TEST(OptimumShift, TheChangeOfOutputsIsTheirsOverAllGroups) {
  torch::manual_seed(22);
  const at::Tensor images = torch::randn({4, 4, 5, 5}, at::kDouble);
  torch::nn::Conv2d conv(torch::nn::Conv2dOptions(4, 6, 2).groups(2));
  conv->to(at::kDouble);
  const at::Tensor before = conv(images).detach();
  const ShiftReport report = optimum_shift(*conv, images, ShiftOptions().ridge(5.0));
  const double change = std::sqrt((conv(images) - before).square().mean().item<double>());
  EXPECT_GT(change, 1e-3);
  EXPECT_NEAR(report.output_change, change, 1e-9);
}

}  // namespace
}  // namespace steppe::shift
