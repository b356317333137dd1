// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/shift/optimizer_state.hpp>
#include <steppe/shift/optimum_shifter.hpp>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "../errors.hpp"

namespace steppe::shift {
namespace {

struct Net {
  Net() {
    torch::manual_seed(1);
    model = torch::nn::Sequential(torch::nn::Linear(4, 20), torch::nn::BatchNorm1d(20), torch::nn::ReLU(), torch::nn::Linear(20, 3));
    inputs = torch::randn({10, 4});
    targets = torch::randint(3, {10}, at::kLong);
  }
  at::Tensor loss() { return torch::cross_entropy_loss(model->forward(inputs), targets); }
  sharpness::LossSurface surface() {
    return {*model, [this] { return loss(); }};
  }
  at::Tensor& final_weight() { return model[3]->as<torch::nn::Linear>()->weight; }

  torch::nn::Sequential model{nullptr};
  at::Tensor inputs, targets;
};

TEST(OptimumShifter, ShiftsTheFinalLayerOnWhatItSawInTheForward) {
  Net net, twin;
  const at::Tensor first = net.model->parameters()[0].detach().clone(), mean = net.model->buffers()[0].clone();
  const ShifterReport report = OptimumShifter(*net.model).shift(net.surface());
  EXPECT_TRUE(report.accepted);
  EXPECT_NEAR(report.loss_after, report.loss_before, 1e-6);
  ASSERT_EQ(report.layers.size(), 1U);
  EXPECT_EQ(report.layers[0].rows, 10);
  EXPECT_LE(report.layers[0].rank, 10);
  EXPECT_LT(report.layers[0].norm_after, report.layers[0].norm_before);
  EXPECT_FALSE(report.trace_before.has_value());
  at::Tensor features = twin.inputs;
  for (size_t i = 0; i < 3; ++i)
    features = i == 0 ? twin.model[0]->as<torch::nn::Linear>()->forward(features)
               : i == 1 ? twin.model[1]->as<torch::nn::BatchNorm1d>()->forward(features)
                        : torch::relu(features);
  optimum_shift(*twin.model[3]->as<torch::nn::Linear>(), features.detach());
  EXPECT_TRUE(net.final_weight().equal(twin.final_weight()));
  EXPECT_TRUE(net.model->parameters()[0].equal(first));
  EXPECT_TRUE(net.model->buffers()[0].equal(mean));
}

TEST(OptimumShifter, InputsOfSeveralBatchesAddUp) {
  struct Batch {
    at::Tensor data, target;
  };
  Net net, twin;
  net.model->eval();
  twin.model->eval();
  const std::vector<Batch> batches = {{net.inputs.slice(0, 0, 4), net.targets.slice(0, 0, 4)}, {net.inputs.slice(0, 4, 10), net.targets.slice(0, 4, 10)}};
  const sharpness::LossSurface surface(*net.model, batches, [&](const Batch& batch) {
    return torch::cross_entropy_loss(net.model->forward(batch.data), batch.target);
  });
  EXPECT_EQ(OptimumShifter(*net.model).shift(surface).layers[0].rows, 10);
  OptimumShifter(*twin.model).shift(twin.surface());
  EXPECT_TRUE(at::allclose(net.final_weight(), twin.final_weight(), 1e-5, 1e-6));
}

TEST(OptimumShifter, AShiftThatRaisesTheLossIsTakenBackBitForBit) {
  Net net;
  {
    const at::NoGradGuard no_grad;
    net.final_weight()[0][0] = -0.0;
  }
  const at::Tensor before = net.final_weight().detach().clone();
  // The other data: what was shifted for two samples need not suit them.
  Net others;
  const sharpness::LossSurface few(*net.model, [&] { return net.model->forward(net.inputs.slice(0, 0, 2)).square().sum(); });
  const sharpness::LossSurface judged(*net.model, [&] { return -net.model[3]->as<torch::nn::Linear>()->weight.square().sum(); });
  bool told = false;
  const auto options = ShifterOptions().accepted([&](const auto&) { told = true; });
  const ShifterReport report = OptimumShifter(*net.model, options).shift(few, judged);
  EXPECT_FALSE(report.accepted);
  EXPECT_GT(report.loss_after, report.loss_before + 1e-4);
  EXPECT_TRUE(report.layers[0].moved);
  EXPECT_EQ(std::memcmp(net.final_weight().data_ptr(), before.data_ptr(), before.nbytes()), 0);
  EXPECT_FALSE(told);
  const auto every_one = ShifterOptions().tolerance(std::numeric_limits<double>::infinity());
  EXPECT_TRUE(OptimumShifter(*net.model, every_one).shift(few, judged).accepted);
  EXPECT_FALSE(net.final_weight().equal(before));
}

TEST(OptimumShifter, ALossThatIsNoNumberOrThrowsAfterwardsLeavesTheWeights) {
  Net net;
  const at::Tensor before = net.final_weight().detach().clone();
  int calls = 0;
  const sharpness::LossSurface no_number(*net.model, [&] { return net.loss() * (++calls > 1 ? std::nan("") : 1.0); });
  EXPECT_FALSE(OptimumShifter(*net.model).shift(net.surface(), no_number).accepted);
  EXPECT_TRUE(net.final_weight().equal(before));
  calls = 0;
  const sharpness::LossSurface throws(*net.model, [&] {
    if (++calls > 1) throw std::runtime_error("on purpose");
    return net.loss();
  });
  EXPECT_EQ(message_of([&] { OptimumShifter(*net.model).shift(net.surface(), throws); }), "on purpose");
  EXPECT_TRUE(net.final_weight().equal(before));
  const auto told = ShifterOptions().accepted([](const auto&) { throw std::runtime_error("on purpose"); });
  EXPECT_EQ(message_of([&] { OptimumShifter(*net.model, told).shift(net.surface()); }), "on purpose");
  EXPECT_TRUE(net.final_weight().equal(before));
}

TEST(OptimumShifter, StepShiftsAtEveryKthCall) {
  Net net;
  OptimumShifter shifter(*net.model, ShifterOptions().every(3));
  std::vector<bool> shifted;
  for (int i = 0; i < 7; ++i) shifted.push_back(shifter.step(net.surface()).has_value());
  EXPECT_EQ(shifted, (std::vector<bool>{false, false, true, false, false, true, false}));
  EXPECT_EQ(shifter.steps(), 7);
}

TEST(OptimumShifter, AStepIsJudgedByOtherDataWhereGiven) {
  Net net;
  const at::Tensor before = net.final_weight().detach().clone();
  const sharpness::LossSurface judged(
      *net.model, [&] { return -net.model[3]->as<torch::nn::Linear>()->weight.square().sum(); });
  OptimumShifter shifter(*net.model);
  const auto refused = shifter.step(net.surface(), judged);
  ASSERT_TRUE(refused.has_value());
  EXPECT_FALSE(refused->accepted);
  EXPECT_TRUE(net.final_weight().equal(before));
  EXPECT_TRUE(shifter.step(net.surface())->accepted);
}

TEST(OptimumShifter, NamedLayersAreShiftedAndTracesTakenOnRequest) {
  Net net;
  const at::Tensor first = net.model->parameters()[0].detach().clone();
  const auto options = ShifterOptions().trace_vectors(5).solution(ShiftOptions().ridge(0.01)).tolerance(10.0);
  const ShifterReport report = OptimumShifter(*net.model, std::vector<std::string>{"0", "3"}, options).shift(net.surface());
  EXPECT_TRUE(report.accepted);
  ASSERT_EQ(report.layers.size(), 2U);
  EXPECT_EQ(report.layers[0].features, 4);
  EXPECT_EQ(report.layers[1].features, 20);
  EXPECT_FALSE(net.model->parameters()[0].equal(first));
  ASSERT_TRUE(report.trace_before.has_value() && report.trace_after.has_value());
  EXPECT_EQ(report.trace_before->draws, 5);
  EXPECT_NE(report.trace_before->mean, report.trace_after->mean);
}

TEST(OptimumShifter, MomentumIsKeptOrForgottenAsAsked) {
  for (const bool forget : {false, true}) {
    Net net;
    torch::optim::SGD optimizer(net.model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
    net.loss().backward();
    optimizer.step();
    const size_t all = optimizer.state().size();
    ShifterOptions options;
    if (forget) options.accepted([&](const std::vector<at::Tensor>& moved) { forget_state(optimizer, moved); });
    EXPECT_TRUE(OptimumShifter(*net.model, options).shift(net.surface()).accepted);
    EXPECT_EQ(optimizer.state().size(), forget ? all - 1 : all);
    net.loss().backward();
    optimizer.step();
    EXPECT_EQ(optimizer.state().size(), all);
  }
}

TEST(OptimumShifter, ErrorsNameWhatIsWrong) {
  Net net;
  const auto complains = [](const std::string& words, auto&& call) {
    const std::string message = message_of(call);
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  complains("\"1\"", [&] { OptimumShifter(*net.model, std::vector<std::string>{"1"}); });
  complains("\"head\"", [&] { OptimumShifter(*net.model, std::vector<std::string>{"head"}); });
  complains("at least one name", [&] { OptimumShifter(*net.model, std::vector<std::string>{}); });
  torch::nn::Sequential bare((torch::nn::ReLU()));
  complains("no Linear", [&] { OptimumShifter shifter(*bare); });
  complains("got 0", [&] { OptimumShifter(*net.model, ShifterOptions().every(0)); });
  complains("got -1", [&] { OptimumShifter(*net.model, ShifterOptions().tolerance(-1.0)); });
  complains("got -1", [&] { OptimumShifter(*net.model, ShifterOptions().trace_vectors(-1)); });
  const sharpness::LossSurface unused(*net.model, [&] { return net.model->parameters()[0].sum(); });
  complains("at least one input", [&] { OptimumShifter(*net.model).shift(unused); });
}

TEST(OptimumShifter, ALayerThatIsAppliedUnseenIsNamedWithTheReason) {
  Net net;
  const auto layer = net.model->register_module("head", torch::nn::Linear(20, 3));
  const at::Tensor x = torch::randn({5, 20});
  OptimumShifter shifter(*net.model);
  const auto complaint = [&](const std::function<at::Tensor()>& loss) {
    return message_of([&] { shifter.shift(sharpness::LossSurface(*net.model, loss)); });
  };
  const std::string scaled = complaint([&] { return torch::linear(x, layer->weight * 2).square().mean(); });
  EXPECT_NE(scaled.find("the layer \"head\" and has seen none: its weight went into aten::mul"), std::string::npos) << scaled;
  const std::string elsewhere = complaint([&] {
    at::Tensor loss;
    std::thread([&] { loss = layer->forward(x).square().mean(); }).join();
    return loss;
  });
  EXPECT_NE(elsewhere.find("\"head\" and has seen none: no operator of this thread"), std::string::npos) << elsewhere;
  EXPECT_EQ(complaint([&] { return (torch::mm(x, layer->weight.t()) + layer->bias).square().mean(); }), "");
}

TEST(OptimumShifter, AnOptimizerIsToldOfWhatMovedOnly) {
  Net net;
  std::vector<at::Tensor> told;
  int calls = 0;
  const ShifterOptions options = ShifterOptions().tolerance(1e9).accepted([&](const std::vector<at::Tensor>& moved) {
    told = moved;
    ++calls;
  });
  // The first layer sees 10 samples of 4 features: full rank, nothing moves.
  OptimumShifter(*net.model, {"0"}, options).shift(net.surface());
  EXPECT_EQ(calls, 0);
  OptimumShifter(*net.model, {"0", "3"}, options).shift(net.surface());
  EXPECT_EQ(calls, 1);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_TRUE(told[0].is_same(net.final_weight()));
}

TEST(OptimumShifter, InputsThatAreNotFiniteAreAnErrorAndNothingMoves) {
  Net net;
  const at::Tensor before = net.final_weight().detach().clone();
  net.inputs[3][2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(message_of([&] { OptimumShifter(*net.model, {"0"}).shift(net.surface()); }).find("inputs are not finite"),
            std::string::npos);
  EXPECT_TRUE(net.final_weight().equal(before));
}

}  // namespace
}  // namespace steppe::shift
