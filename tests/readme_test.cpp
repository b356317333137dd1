// The README's code, taken from its text when CMake configures, compiled and run.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/version.h>

#include <steppe/steppe.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

namespace {

/// What the README's snippets assume.
class Readme : public testing::Test {
 protected:
  Readme() {
    torch::manual_seed(1);
    model = torch::nn::Sequential(torch::nn::Linear(4, 6), torch::nn::BatchNorm1d(6), torch::nn::Linear(6, 2));
  }

  torch::nn::Sequential model{nullptr};
  const at::Tensor inputs = torch::ones({8, 4}) * torch::arange(8).view({8, 1});
  int passes = 0;
  std::function<at::Tensor()> closure = [this] {
    ++passes;
    at::Tensor loss = model->forward(inputs).square().mean();
    loss.backward();
    return loss;
  };
};

TEST_F(Readme, CompositionsStep) {
#include "readme/compositions.inc"
  composed.step(closure);
  own.step(closure);
  EXPECT_EQ(passes, 4);
}

TEST_F(Readme, MethodsNearTheBasesCostMakeOnePass) {
#include "readme/near_the_base.inc"
  EXPECT_EQ(passes, 3);
  EXPECT_EQ(msam.steps(), 2);
  EXPECT_TRUE(msam.report().perturbed);
  EXPECT_NEAR(tail.param_groups()[0].options().get_lr(), 0.1 * 2 / 50, 1e-15);
  EXPECT_EQ(tail.policy().first_step(), 700);
}

TEST_F(Readme, TheBasesStepIsFused) {
#include "readme/fused.inc"
  sam.step(closure);
  EXPECT_EQ(passes, 2);
  EXPECT_EQ(sam.fused_groups(), std::vector<bool>{true});
  adamw.step();
  EXPECT_EQ(adamw.fused_groups(), std::vector<bool>{true});
}

TEST_F(Readme, OptionsReachTheirGroups) {
  const std::vector<at::Tensor> parameters = model->parameters();
  const std::vector<at::Tensor> weights(parameters.begin(), parameters.begin() + 2), others(parameters.begin() + 2, parameters.end());
#include "readme/options.inc"
  EXPECT_EQ(zsharp.ascent().percentile(), 0.8);
  zsharp.step(closure);
  gcsam.step(closure);
  grouped.step(closure);
  EXPECT_EQ(passes, 6);
}

TEST_F(Readme, TheTrainingLoopRuns) {
#include "readme/training_loop.inc"
  EXPECT_EQ(passes, 3);  // all steps come before from_step(100)
  EXPECT_EQ(sam.steps(), 3);
  EXPECT_TRUE(seen.unclipped_norm.defined());
  EXPECT_TRUE(loss.isfinite().item<bool>());
}

TEST_F(Readme, StepsInSixteenBitsAreMade) {
  steppe::SAM<torch::optim::SGD> sam(*model, torch::optim::SGDOptions(0.1));
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
#include "readme/mixed_precision.inc"
  EXPECT_EQ(sam.steps() + sam.skipped_steps(), 1);
#endif
}

TEST_F(Readme, StepsInPartsAreMade) {
  steppe::SAM<torch::optim::SGD> sam(*model, torch::optim::SGDOptions(0.1));
#include "readme/parts.inc"
  EXPECT_EQ(sam.steps(), 1);
  EXPECT_TRUE(sam.report().perturbed);
}

TEST_F(Readme, AveragedWeightsAreSwapped) {
  const at::Tensor before = model->parameters().front().detach().clone();
#include "readme/averaged.inc"
  EXPECT_TRUE(torch::equal(before, model->parameters().front()));
}

TEST_F(Readme, CoresAreScaled) {
  const std::vector<at::Tensor> parameters = model->parameters();
  const std::vector<at::Tensor> cores(parameters.begin(), parameters.begin() + 2), ordinary(parameters.begin() + 2, parameters.end());
  model->zero_grad();
#include "readme/tensorized.inc"
  EXPECT_EQ(passes, 3);
  EXPECT_EQ(q.sizes(), (std::vector<int64_t>{3, 1}));
  both.step(closure);
  EXPECT_EQ(passes, 5);
}

TEST_F(Readme, TensorizedLayersAreTrained) {
  torch::nn::Linear linear(12, 20);
  const at::Tensor images = torch::sin(torch::arange(8 * 3 * 8 * 8).to(at::kFloat)).view({8, 3, 8, 8});
  testing::internal::CaptureStdout();
#include "readme/tensorized_layers.inc"
  EXPECT_NE(testing::internal::GetCapturedStdout().find("format=TensorRing"), std::string::npos);
  EXPECT_GE(head->compression(), 20.0);
  EXPECT_EQ(full.sizes(), (std::vector<int64_t>{16, 3, 3, 3}));
  EXPECT_EQ(near.sizes(), images.sizes());
  const at::Tensor rows = torch::ones({2, 12});
  EXPECT_EQ(smaller->forward(rows).sizes(), linear->forward(rows).sizes());
  EXPECT_TRUE(adapter->forward(rows).allclose(linear->forward(rows)));
  const std::function<at::Tensor()> loss = [&] {
    net->zero_grad();
    at::Tensor value = net->forward(images).square().mean();
    value.backward();
    return value;
  };
  const double before = das.step(loss).item<double>();
  EXPECT_LT(loss().item<double>(), before);
}

TEST_F(Readme, AnExistingOptimizerIsPerturbed) {
  torch::optim::SGD existing(model->parameters(), torch::optim::SGDOptions(0.1));
#include "readme/perturbation.inc"
  EXPECT_EQ(passes, 2);
}

TEST_F(Readme, SharpnessIsMeasured) {
  struct Batch {
    at::Tensor data, target;
  };
  const at::Tensor targets = torch::arange(8) % 2;
  const std::vector<Batch> batches = {{inputs.slice(0, 0, 5), targets.slice(0, 0, 5)}, {inputs.slice(0, 5, 8), targets.slice(0, 5, 8)}};
#include "readme/sharpness.inc"
  EXPECT_GT(trace.standard_error, 0.0);
  EXPECT_TRUE(top.converged);
  EXPECT_GT(sam_sees, 0.0);
  EXPECT_TRUE(std::isfinite(on_average));
  EXPECT_GT(at_worst, 0.0);
  EXPECT_EQ(slice.losses.size(), 11U);
  EXPECT_EQ(plane.losses.size(), 21U);
}

TEST_F(Readme, LayersAreShifted) {
  torch::nn::Linear layer(4, 2);
  const at::Tensor inputs_of_layer = inputs;
  const at::Tensor targets = torch::arange(8) % 2;
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
#include "readme/optimum_shift.inc"
  EXPECT_EQ(seen.rank, 1);
  EXPECT_TRUE(once.accepted);
}

}  // namespace
