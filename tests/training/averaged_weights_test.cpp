// SPDX-License-Identifier: MIT
#include <ATen/autocast_mode.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>
#include <torch/version.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <steppe/sharpness_aware.hpp>
#include <steppe/step/autocast_state.hpp>
#include <steppe/step/weights_in_use.hpp>
#include <steppe/training/averaged_weights.hpp>

#include "../errors.hpp"
#include "../saved.hpp"

namespace steppe::training {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

/// One weight, a float buffer and a counter.
struct OneWeight : torch::nn::Module {
  explicit OneWeight(double value, at::ScalarType type = at::kDouble) {
    w = register_parameter("w", torch::full({2}, value, type));
    mean = register_buffer("mean", torch::full({2}, value, type));
    count = register_buffer("count", torch::zeros({1}, torch::kLong));
  }
  void set(double value) {
    const torch::NoGradGuard no_grad;
    w.fill_(value);
    mean.fill_(value);
    count += 1;
  }
  at::Tensor w, mean, count;
};

double first(const at::Tensor& tensor) { return tensor.flatten()[0].item<double>(); }

std::string bits(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().contiguous();
  return {static_cast<const char*>(dense.data_ptr()), static_cast<size_t>(dense.nbytes())};
}

/// Parameters and buffers.
std::vector<std::string> bits(const torch::nn::Module& model) {
  std::vector<std::string> all;
  for (const at::Tensor& tensor : model.parameters()) all.push_back(bits(tensor));
  for (const at::Tensor& tensor : model.buffers()) all.push_back(bits(tensor));
  return all;
}

std::vector<const void*> addresses(const torch::nn::Module& model) {
  std::vector<const void*> all;
  for (const at::Tensor& tensor : model.parameters()) all.push_back(tensor.data_ptr());
  for (const at::Tensor& tensor : model.buffers()) all.push_back(tensor.data_ptr());
  return all;
}

void expect_words(const std::string& message, const std::string& words) {
  EXPECT_NE(message.find(words), std::string::npos) << "no '" << words << "' in: " << message;
}

/// The average after each of these weights.
std::vector<double> averages_over(const std::vector<double>& weights, const Averaging& averaging) {
  OneWeight model(-100.0);  // weights before the first update() do not count
  AveragedWeights average(model, averaging);
  std::vector<double> all;
  for (const double weight : weights) {
    model.set(weight);
    average.update();
    all.push_back(first(average.averages().front()));
  }
  EXPECT_EQ(average.updates(), static_cast<int64_t>(weights.size()));
  return all;
}

TEST(AveragedWeights, AnExponentialAverageBeginsWithTheFirstWeights) {
  EXPECT_EQ(averages_over({8.0, 4.0, 0.0, 5.0}, ema(0.75)), (std::vector<double>{8.0, 7.0, 5.25, 5.1875}));
  EXPECT_EQ(averages_over({8.0, 4.0, 3.0}, ema(0.0)), (std::vector<double>{8.0, 4.0, 3.0}));
}

TEST(AveragedWeights, AWarmUpForgetsTheFirstWeightsSoon) {
  // Decays 2/11, 3/12 = 1/4, then 0.3 instead of 4/13.
  const std::vector<double> averages = averages_over({0.0, 11.0, 5.0, 1.0}, ema(0.3).warm_up());
  const std::vector<double> expected = {0.0, 9.0, 6.0, 2.5};
  for (size_t t = 0; t < expected.size(); ++t) EXPECT_NEAR(averages[t], expected[t], 1e-14) << "t = " << t;
}

TEST(AveragedWeights, SwaIsTheMeanOfAllUpdates) {
  EXPECT_EQ(averages_over({8.0, 4.0, 0.0, 8.0}, swa()), (std::vector<double>{8.0, 6.0, 4.0, 5.0}));
}

TEST(AveragedWeights, WeightsThatStandStillAreTheirAverageBitForBit) {
  for (const Averaging& averaging : {ema(0.999), ema(0.3), ema(0.9).warm_up(), swa()}) {
    OneWeight model(0.1, at::kFloat);
    AveragedWeights average(model, averaging);
    for (int t = 0; t < 50; ++t) average.update();
    EXPECT_EQ(bits(average.averages().front()), bits(model.w));
  }
}

TEST(AveragedWeights, SixteenBitWeightsAreAveragedInFloat32) {
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
    OneWeight model(1.0, type);
    AveragedWeights average(model, ema(0.999).buffers());
    average.update();
    model.set(2.0);
    for (int t = 0; t < 4; ++t) average.update();  // a thousandth of 1 is lost in 16 bits beside 1
    ASSERT_EQ(average.averages().size(), 2U);
    for (const at::Tensor& each : average.averages()) {
      EXPECT_EQ(each.scalar_type(), at::kFloat);
      EXPECT_NEAR(first(each), 2.0 - 0.999 * 0.999 * 0.999 * 0.999, 1e-6);
    }
    const at::Tensor rounded = average.averages().front().to(type);
    const auto swapped = average.swap();
    EXPECT_EQ(model.w.scalar_type(), type);
    EXPECT_EQ(bits(model.w), bits(rounded));
  }
}

TEST(AveragedWeights, BuffersAreAveragedOnRequestAndCountersNever) {
  for (const bool with_buffers : {false, true}) {
    OneWeight model(4.0);
    AveragedWeights average(model, swa().buffers(with_buffers));
    average.update();
    model.set(0.0);
    average.update();
    EXPECT_EQ(average.averages().size(), with_buffers ? 2U : 1U);
    {
      const auto swapped = average.swap();
      EXPECT_EQ(first(model.w), 2.0);
      EXPECT_EQ(first(model.mean), with_buffers ? 2.0 : 0.0);
      EXPECT_EQ(first(model.count), 1.0);
    }
    EXPECT_EQ(first(model.mean), 0.0);
  }
}

TEST(AveragedWeights, TakesWhateverStandsForAModel) {
  const torch::nn::Sequential holder(torch::nn::Linear(2, 1));
  const auto pointer = std::make_shared<OneWeight>(1.0);
  OneWeight module(1.0);
  EXPECT_EQ(AveragedWeights(holder).averaging().decay(), 0.999);
  for (const auto& average : {std::make_unique<AveragedWeights>(holder), std::make_unique<AveragedWeights>(pointer),
                              std::make_unique<AveragedWeights>(module)}) {
    average->update();
    EXPECT_EQ(average->updates(), 1);
  }
}

TEST(AveragedWeights, TiedWeightsAreAveragedOnce) {
  struct Tied : OneWeight {
    Tied() : OneWeight(8.0) { register_parameter("again", w); }
  } model;
  AveragedWeights average(model, ema(0.5));
  average.update();
  model.set(0.0);
  average.update();
  EXPECT_EQ(average.averages().size(), 1U);
  {
    const auto swapped = average.swap();
    EXPECT_EQ(first(model.w), 4.0);
  }
  EXPECT_EQ(first(model.w), 0.0);
}

TEST(AveragedWeights, FollowAModelThatGetsOtherMemory) {
  OneWeight model(8.0, at::kFloat);
  AveragedWeights average(model, ema(0.5));
  average.update();
  model.to(at::kDouble);
  model.set(4.0);
  average.update();
  EXPECT_EQ(average.averages().front().scalar_type(), at::kFloat);
  const auto swapped = average.swap();
  EXPECT_EQ(first(model.w), 6.0);
}

/// A layer with BatchNorm, dropout and memory of several kinds.
struct Net : torch::nn::Module {
  explicit Net(at::ScalarType type = at::kFloat) {
    torch::manual_seed(3);
    linear = register_module("linear", torch::nn::Linear(3, 4));
    norm = register_module("norm", torch::nn::BatchNorm1d(4));
    transposed = register_parameter("transposed", torch::randn({4, 2}).t().detach());
    odd = register_parameter("odd", torch::tensor({std::numeric_limits<float>::quiet_NaN(), -0.0F, 1e-40F}));
    to(type);
  }
  at::Tensor forward(const at::Tensor& x) { return norm(linear(x)).matmul(transposed.t()); }
  torch::nn::Linear linear{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  at::Tensor transposed, odd;
};

at::Tensor input(int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  return torch::randn({6, 3});
}

void train(Net& net, torch::optim::Optimizer& optimizer, int64_t steps, int64_t from = 0) {
  net.train();
  for (int64_t i = 0; i < steps; ++i)
    optimizer.step([&] {
      optimizer.zero_grad();
      const at::Tensor loss = net.forward(input(from + i)).square().mean();
      loss.backward();
      return loss;
    });
}

TEST(AveragedWeights, ASwapPutsTheTrainedModelBackBitForBitAtTheSameAddresses) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
    Net net(type);
    AveragedWeights average(net, ema(0.5).buffers());
    average.update();
    {
      const torch::NoGradGuard no_grad;
      for (const at::Tensor& param : net.parameters()) param.add_(1.0);
      net.norm->running_mean.fill_(7.0);
    }
    average.update();
    const auto trained = bits(net);
    const auto where = addresses(net);
    const std::string file = saved(average);
    {
      const auto swapped = average.swap();
      EXPECT_TRUE(average.is_swapped());
      EXPECT_EQ(addresses(net), where);
      EXPECT_EQ(first(net.norm->running_mean), 3.5);
      EXPECT_EQ(bits(net.linear->bias), bits(average.averages()[3].to(type)));
      const torch::NoGradGuard no_grad;
      net.norm->running_var.fill_(9.0);
      net.norm->num_batches_tracked.fill_(5);
      net.linear->bias.fill_(3.0);
    }
    EXPECT_FALSE(average.is_swapped());
    EXPECT_EQ(bits(net), trained);
    EXPECT_EQ(addresses(net), where);
    EXPECT_EQ(saved(average), file);
  }
}

TEST(AveragedWeights, ASwapEndsWhateverEndsItsScope) {
  OneWeight model(8.0);
  AveragedWeights average(model, ema(0.5));
  average.update();
  model.set(0.0);
  EXPECT_EQ(message_of([&] {
              const auto swapped = average.swap();
              EXPECT_EQ(first(model.w), 8.0);
              throw std::runtime_error("no data");
            }),
            "no data");
  EXPECT_EQ(first(model.w), 0.0);
  {
    auto swapped = average.swap();
    swapped.restore();
    EXPECT_EQ(first(model.w), 0.0);
    model.set(3.0);
    average.update();
  }
  EXPECT_EQ(first(model.w), 3.0);
  std::optional<AveragedWeights::Swap> later;
  later.emplace(average);
  EXPECT_EQ(first(model.w), 5.5);
  later.reset();
  EXPECT_EQ(first(model.w), 3.0);
}

/// Trains with or without averages and swaps, which must make no difference.
template <class Optimizer, class OptimizerOptions>
void expect_undisturbed(const OptimizerOptions& options) {
  Net alone, averaged;
  Optimizer of_alone(alone.parameters(), options), of_averaged(averaged.parameters(), options);
  AveragedWeights average(averaged, ema(0.9));
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    for (int64_t i = 0; i < 3; ++i) {
      train(alone, of_alone, 1, 3 * epoch + i);
      train(averaged, of_averaged, 1, 3 * epoch + i);
      average.update();
    }
    const auto swapped = average.swap();
    averaged.eval();
    const torch::NoGradGuard no_grad;
    averaged.forward(input(99));
  }
  EXPECT_EQ(bits(averaged), bits(alone));
  EXPECT_EQ(average.updates(), 9);
}

TEST(AveragedWeights, OptimizersGoOnAsIfNothingHadBeen) {
  expect_undisturbed<SGD>(SGDOptions(0.1).momentum(0.9));
  expect_undisturbed<torch::optim::Adam>(torch::optim::AdamOptions(0.01));
  expect_undisturbed<SharpnessAware<SGD>>(SGDOptions(0.1).momentum(0.9));
}

TEST(AveragedWeights, ALoopWithoutAClosureGoesOnAsIfNothingHadBeen) {
  const auto trained = [](bool with_average) {
    Net net;
    SharpnessAware<SGD> optimizer(net.parameters(), SGDOptions(0.1).momentum(0.9));
    optimizer.attach(net);
    AveragedWeights average(net, swa());
    for (int64_t i = 0; i < 4; ++i) {
      net.train();
      optimizer.zero_grad();
      net.forward(input(i)).square().mean().backward();
      optimizer.step();
      if (!with_average) continue;
      average.update();
      const auto swapped = average.swap();
      net.eval();
      net.forward(input(99));
    }
    return bits(net);
  };
  EXPECT_EQ(trained(true), trained(false));
}

TEST(AveragedWeights, ASwapEndsInInferenceModeToo) {
  Net net;
  AveragedWeights average(net, ema(0.5));
  {
    const c10::InferenceMode inference;
    average.update();
  }
  const torch::NoGradGuard no_grad;
  net.linear->bias.fill_(2.0);
  average.update();
  const auto trained = bits(net);
  {
    const c10::InferenceMode inference;
    const auto swapped = average.swap();
    net.eval();
    net.forward(input(1));
    EXPECT_NE(bits(net), trained);
  }
  EXPECT_EQ(bits(net), trained);
}

TEST(AveragedWeights, AutocastForgetsItsCastsWhenWeightsMove) {
  torch::nn::Conv1d layer(torch::nn::Conv1dOptions(1, 1, 1).bias(false));  // its weight is cast as it is, and kept
  const auto set = [&](double value) {
    const torch::NoGradGuard no_grad;
    layer->weight.fill_(value);
  };
  set(8.0);
  AveragedWeights average(layer, ema(0.5));
  average.update();
  set(1.0);
  const step::AutocastState before = step::AutocastState::now();
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCPU, true);
#else
  at::autocast::set_autocast_cpu_dtype(at::kBFloat16);
  at::autocast::set_cpu_enabled(true);
#endif
  const at::Tensor x = torch::ones({1, 1, 1});
  EXPECT_EQ(layer->forward(x).scalar_type(), at::kBFloat16);
  {
    const auto swapped = average.swap();
    EXPECT_EQ(first(layer->forward(x)), 8.0);
  }
  EXPECT_EQ(first(layer->forward(x)), 1.0);
  before.set();
  at::autocast::clear_cache();
}

TEST(AveragedWeights, WhatASwapForbidsIsAnErrorThatSaysSo) {
  OneWeight model(8.0);
  AveragedWeights average(model, ema(0.5));
  average.update();
  model.set(0.0);
  const std::string file = saved(average);
  {
    const auto swapped = average.swap();
    const auto refusal = [&](const std::string& call, const std::string& message) {
      expect_words(message,
                   "steppe: " + call + " was called while the averaged weights are in the model: end the swap");
      EXPECT_EQ(first(model.w), 8.0);
      EXPECT_EQ(average.updates(), 1);
    };
    refusal("update()", message_of([&] { average.update(); }));
    refusal("swap()", message_of([&] { const auto again = average.swap(); }));
    refusal("save()", message_of([&] { saved(average); }));
    refusal("load()", message_of([&] { load(average, file); }));
  }
  EXPECT_EQ(first(model.w), 0.0);
  average.update();
  EXPECT_EQ(first(average.averages().front()), 4.0);
}

TEST(AveragedWeights, ASwapNeedsAnAverage) {
  OneWeight model(8.0);
  AveragedWeights average(model, swa());
  expect_words(message_of([&] { const auto swapped = average.swap(); }), "before the first update()");
  EXPECT_FALSE(average.is_swapped());
  EXPECT_TRUE(average.averages().empty());
}

TEST(AveragedWeights, SettingsThatMakeNoAverageAreRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [decay, words] : {std::pair(1.0, "in [0, 1), got 1;"), std::pair(-0.1, "got -0.1"),
                                     std::pair(1.5, "got 1.5"), std::pair(nan, "got nan")})
    expect_words(message_of([value = decay] { ema(value); }), words);
  expect_words(message_of([] { swa().warm_up(); }), "warm_up() belongs to ema()");
  EXPECT_EQ(message_of([] { swa().warm_up(false); }), "");
  torch::nn::Sequential nothing;
  expect_words(message_of([&] { AveragedWeights average(nothing); }), "no floating-point parameters");
  expect_words(message_of([] { AveragedWeights average(std::shared_ptr<OneWeight>{}); }), "null");
}

TEST(AveragedWeights, AWeightOfAnotherShapeIsNamed) {
  OneWeight model(8.0);
  AveragedWeights average(model, swa());
  average.update();
  const std::string file = saved(average);
  const at::Tensor before = model.w.detach();
  model.w.set_data(torch::zeros({3}, torch::kDouble));
  for (const std::string& message :
       {message_of([&] { average.update(); }), message_of([&] { average.swap().restore(); })})
    expect_words(message, "'w' has become one of shape [3], its average has [2]: make a new AveragedWeights");
  expect_words(message_of([&] { load(average, file); }), "of shape [2] and type double for 'w', which needs [3]");
  EXPECT_FALSE(average.is_swapped());
  EXPECT_EQ(average.updates(), 1);
  model.w.set_data(before);
  {  // what changes within a swap cannot be restored; the rest is
    auto swapped = average.swap();
    model.mean.fill_(1.0);
    model.w.set_data(torch::zeros({3}, torch::kDouble));
    expect_words(message_of([&] { swapped.restore(); }), "could not be restored");
    EXPECT_EQ(first(model.mean), 8.0);
  }
  EXPECT_FALSE(average.is_swapped());
}

TEST(AveragedWeights, WeightsThatAnotherThreadPerturbsAreNotTaken) {
  OneWeight model(8.0);
  AveragedWeights average(model, swa());
  average.update();
  step::WeightsInUse in_use;
  std::thread([&] { in_use.add({model.w}); }).join();
  for (const std::string& message :
       {message_of([&] { average.update(); }), message_of([&] { average.swap().restore(); })})
    expect_words(message, "perturbed by another thread at this moment");
  EXPECT_EQ(average.updates(), 1);
  in_use.release();
  average.update();
  EXPECT_EQ(average.updates(), 2);
}

TEST(AveragedWeights, ResumesBitForBit) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const Averaging& averaging : {ema(0.9), ema(0.99).warm_up().buffers(), swa(), swa().buffers()})
      for (const int64_t saved_after : {0, 1, 4}) {
        const auto step = [](Net& net, AveragedWeights& average, int64_t t) {
          const torch::NoGradGuard no_grad;
          torch::manual_seed(static_cast<uint64_t>(t));
          for (const at::Tensor& param : net.parameters()) param.add_(torch::randn_like(param));
          net.norm->running_mean.add_(1.0);
          average.update();
        };
        Net whole(type), resumed(type);
        AveragedWeights of_whole(whole, averaging), of_resumed(resumed, ema(0.123));
        of_resumed.update();  // what it has is replaced
        for (int64_t t = 0; t < saved_after; ++t) step(whole, of_whole, t);
        load(of_resumed, saved(of_whole));
        EXPECT_EQ(of_resumed.updates(), saved_after);
        EXPECT_EQ(of_resumed.averaging().decay(), averaging.decay());
        EXPECT_EQ(saved(of_resumed), saved(of_whole));
        std::stringstream model;
        {
          torch::serialize::OutputArchive archive;
          whole.save(archive);
          archive.save_to(model);
          torch::serialize::InputArchive read;
          read.load_from(model);
          resumed.load(read);
        }
        for (int64_t t = saved_after; t < 7; ++t) {
          step(whole, of_whole, t);
          step(resumed, of_resumed, t);
        }
        EXPECT_EQ(saved(of_resumed), saved(of_whole));
        const auto a = of_whole.swap(), b = of_resumed.swap();
        EXPECT_EQ(bits(resumed), bits(whole));
      }
}

/// The message; nothing must have changed.
std::string refusal_of(AveragedWeights& average, const std::string& file) {
  const std::string before = saved(average);
  const std::string message = message_of([&] { load(average, file); });
  EXPECT_FALSE(message.empty());
  EXPECT_EQ(saved(average), before);
  return message;
}

TEST(AveragedWeights, NothingChangesByADamagedOrForeignCheckpoint) {
  OneWeight model(8.0), source(4.0);
  AveragedWeights present(model, ema(0.25)), another(source, ema(0.5).buffers());
  for (int t = 0; t < 3; ++t) present.update();
  another.update();
  source.set(2.0);
  another.update();
  const std::string file = saved(another);

  torch::serialize::InputArchive all;
  std::istringstream stream(file);
  all.load_from(stream);
  const std::vector<std::string> names = all.keys();
  EXPECT_EQ(names.size(), 9U);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const bool is_tensor = name.rfind("averages/", 0) == 0 && name != "averages/size";
    for (const c10::IValue& other : {c10::IValue(), c10::IValue(std::string("x")), c10::IValue(1.5)}) {
      const bool is_a_decay = name == "averaging/decay" && other.isDouble();
      const std::string message = refusal_of(present, with_other_field(file, name, other));
      if (!is_tensor && !is_a_decay) expect_words(message, "'" + name + "'");
      if (is_tensor && other.isNone()) expect_words(message, name == "averages/0" ? "'w'" : "'mean'");
    }
  }
  const auto expect_refusal = [&](const char* name, const c10::IValue& value, const char* words) {
    expect_words(refusal_of(present, with_other_field(file, name, value)), words);
  };
  expect_refusal("averaged_weights_format", int64_t{2}, "has format 2, this version reads 1");
  expect_refusal("averaging/kind", int64_t{2}, "no kind of average with number 2");
  expect_refusal("averaging/kind", int64_t{-1}, "number -1");
  expect_refusal("averaging/decay", 1.0, "must be in [0, 1), got 1");
  expect_refusal("averaging/buffers", false, "averages of 2 tensors, the model needs 1");
  expect_refusal("updates", int64_t{-1}, "counts -1 updates; it is damaged");
  expect_refusal("updates", int64_t{0}, "averages of 2 tensors, the model needs 0");
  expect_refusal("averages/size", int64_t{-1}, "would hold -1 tensors");
  expect_refusal("averages/size", int64_t{1}, "averages of 1 tensors, the model needs 2");
  expect_refusal("averages/size", int64_t{3}, "averages of 3 tensors, the model needs 2");
  expect_refusal("averages/0", torch::zeros({3}, torch::kDouble), "of shape [3] and type double for 'w'");
  expect_refusal("averages/1", torch::zeros({2}), "of shape [2] and type float for 'mean', which needs [2] and double");
  EXPECT_EQ(message_of([&] { load(present, with_other_field(file, "updates", int64_t{9})); }), "");
  EXPECT_EQ(present.updates(), 9);
  EXPECT_TRUE(present.averaging().averages_buffers());
  EXPECT_EQ(first(present.averages().front()), 3.0);

  SGD optimizer({model.w}, SGDOptions(0.1));
  expect_words(refusal_of(present, saved(optimizer)), "'averaged_weights_format'");
  refusal_of(present, saved(model.w));
  refusal_of(present, file.substr(0, file.size() / 2));
  Net other_model;
  AveragedWeights of_other(other_model);
  of_other.update();
  expect_words(refusal_of(present, saved(of_other)), "the model needs 1: load it for the model that it was saved for");
}

/// y = 2 x behind BatchNorm, so that the statistics follow the weight.
struct Normed : torch::nn::Module {
  Normed() {
    w = register_parameter("w", torch::full({1}, 2.0));
    norm = register_module("norm", torch::nn::BatchNorm1d(torch::nn::BatchNorm1dOptions(1).momentum(0.25)));
    unused = register_module("unused", torch::nn::BatchNorm2d(3));
    untracked = register_module("untracked",
                                torch::nn::BatchNorm1d(torch::nn::BatchNorm1dOptions(1).track_running_stats(false)));
    dropout = register_module("dropout", torch::nn::Dropout(0.5));
    unused->running_mean.fill_(3.0);
  }
  at::Tensor forward(const at::Tensor& x) { return untracked(norm(x * w)); }
  at::Tensor w;
  torch::nn::BatchNorm1d norm{nullptr}, untracked{nullptr};
  torch::nn::BatchNorm2d unused{nullptr};
  torch::nn::Dropout dropout{nullptr};
};

/// Means 2 and 5, unbiased variances 2 and 8 of x; twice and four times as much behind w = 2.
std::vector<at::Tensor> two_batches() {
  return {torch::tensor({{1.0F}, {3.0F}}), torch::tensor({{5.0F}, {3.0F}, {9.0F}, {3.0F}})};
}

TEST(RecomputeStatistics, AreTheMeansOverTheBatches) {
  Normed net;
  net.norm->running_mean.fill_(100.0);
  net.norm->num_batches_tracked.fill_(17);
  net.eval();
  net.norm->train();
  recompute_statistics(net, two_batches(), [&](const at::Tensor& batch) {
    EXPECT_TRUE(net.is_training() && net.dropout->is_training());
    EXPECT_FALSE(net.forward(batch).requires_grad());
  });
  EXPECT_NEAR(first(net.norm->running_mean), 2.0 * (2.0 + 5.0) / 2.0, 1e-5);
  EXPECT_NEAR(first(net.norm->running_var), 4.0 * (2.0 + 8.0) / 2.0, 1e-5);
  EXPECT_EQ(first(net.norm->num_batches_tracked), 2.0);
  EXPECT_EQ(*net.norm->options.momentum(), 0.25);
  EXPECT_FALSE(net.is_training() || net.dropout->is_training() || net.unused->is_training());
  EXPECT_TRUE(net.norm->is_training());
  EXPECT_EQ(first(net.unused->running_mean), 3.0) << "of a layer that no batch reached";
}

TEST(RecomputeStatistics, WithinASwapAreThoseOfTheAverageUntilItIsOver) {
  const auto net = std::make_shared<Normed>();
  AveragedWeights average(net, swa());
  average.update();
  {
    const torch::NoGradGuard no_grad;
    net->w.fill_(4.0);
  }
  average.update();
  net->forward(two_batches()[0]);
  const auto trained = bits(*net);
  {
    const auto swapped = average.swap();
    recompute_statistics(net, two_batches(), [&](const at::Tensor& batch) { net->forward(batch); });
    EXPECT_NEAR(first(net->norm->running_mean), 3.0 * 3.5, 1e-5);
    EXPECT_NEAR(first(net->norm->running_var), 9.0 * 5.0, 1e-4);
  }
  EXPECT_EQ(bits(*net), trained);
}

TEST(RecomputeStatistics, AreAsTheyWereAfterAnError) {
  Normed net;
  net.forward(two_batches()[0]);
  const auto before = bits(net);
  net.eval();
  int64_t passes = 0;
  const std::string message = message_of([&] {
    recompute_statistics(net, two_batches(), [&](const at::Tensor& batch) {
      net.forward(batch);
      if (++passes == 2) throw std::runtime_error("no second batch");
    });
  });
  EXPECT_EQ(message, "no second batch");
  expect_words(message_of([&] { recompute_statistics(net, std::vector<at::Tensor>{}, [](const at::Tensor&) {}); }),
               "cannot be recomputed from no batch");
  EXPECT_EQ(bits(net), before);
  EXPECT_EQ(*net.norm->options.momentum(), 0.25);
  EXPECT_FALSE(net.is_training() || net.norm->is_training());
}

TEST(RecomputeStatistics, NeedNoPassWithoutBatchNorm) {
  torch::nn::Sequential model(torch::nn::Linear(2, 1), torch::nn::Dropout(0.5));
  model->eval();
  recompute_statistics(model, two_batches(), [](const at::Tensor&) { ADD_FAILURE(); });
  EXPECT_FALSE(model->is_training());
}

}  // namespace
}  // namespace steppe::training
