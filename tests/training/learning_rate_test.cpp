// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <steppe/sharpness_aware.hpp>
#include <steppe/training/learning_rate.hpp>

#include "../errors.hpp"
#include "../saved.hpp"

namespace steppe::training {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

at::Tensor weight(double value) { return torch::full({1}, value, torch::dtype(torch::kDouble).requires_grad(true)); }

std::vector<double> rates_of(torch::optim::Optimizer& optimizer) {
  std::vector<double> rates;
  for (const auto& group : optimizer.param_groups()) rates.push_back(group.options().get_lr());
  return rates;
}

TEST(LearningRate, IsSetBeforeTheFirstStepAndAfterEachCall) {
  SGD optimizer({weight(1.0)}, SGDOptions(0.5));
  LearningRate rate(optimizer, wsd(6, 0.5, 2, 0.0));
  std::vector<double> rates;
  for (int64_t t = 0; t < 8; ++t) {
    EXPECT_EQ(rate.steps_made(), t);
    EXPECT_EQ(rate.factor() * 0.5, rates_of(optimizer)[0]);
    rates.push_back(rates_of(optimizer)[0]);
    rate.step();
  }
  const std::vector<double> expected = {0.25, 0.5, 0.5, 0.5, 1.0 / 3.0, 1.0 / 6.0, 0.0, 0.0};
  for (size_t t = 0; t < rates.size(); ++t) EXPECT_NEAR(rates[t], expected[t], 1e-16) << "t = " << t;
}

TEST(LearningRate, IsLibTorchsScheduler) {
  SGD optimizer({weight(1.0)}, SGDOptions(8.0));
  const std::unique_ptr<torch::optim::LRScheduler> scheduler =
      std::make_unique<LearningRate>(optimizer, multistep({1, 3}, 0.5));
  EXPECT_EQ(rates_of(optimizer)[0], 8.0);
  scheduler->step();
  EXPECT_EQ(rates_of(optimizer)[0], 4.0);
  scheduler->step();
  scheduler->step();
  EXPECT_EQ(rates_of(optimizer)[0], 2.0);
}

TEST(LearningRate, MultipliesEachGroupsOwnByTheSameFactor) {
  SGD optimizer({torch::optim::OptimizerParamGroup({weight(1.0)}),
                 torch::optim::OptimizerParamGroup({weight(1.0)}, std::make_unique<SGDOptions>(0.02)),
                 torch::optim::OptimizerParamGroup({weight(1.0)}, std::make_unique<SGDOptions>(0.0))},
                SGDOptions(0.5));
  LearningRate rate(optimizer, cosine_tail(10, 0.4, 2, 0.0));
  EXPECT_EQ(rates_of(optimizer), (std::vector<double>{0.25, 0.01, 0.0}));
  for (int t = 0; t < 8; ++t) rate.step();
  EXPECT_NEAR(rates_of(optimizer)[0], 0.25, 1e-16);
  EXPECT_NEAR(rates_of(optimizer)[1], 0.01, 1e-17);
  EXPECT_EQ(rates_of(optimizer)[2], 0.0);
  EXPECT_EQ(rate.base_learning_rates(), (std::vector<double>{0.5, 0.02, 0.0}));
}

/// w^2/2 from w = 1: a step of SGD multiplies w by 1 - lr.
template <class Optimizer>
auto half_square(Optimizer& optimizer, const at::Tensor& w) {
  return [&optimizer, w] {
    optimizer.zero_grad();
    const at::Tensor loss = w.square().sum() / 2.0;
    loss.backward();
    return loss;
  };
}

TEST(LearningRate, MovesTheStepsOfSgdFromTheFirstOn) {
  const at::Tensor w = weight(1.0);
  SGD optimizer({w}, SGDOptions(0.5));
  LearningRate rate(optimizer, wsd(4, 0.5, 2, 0.0));  // 1/4, 1/2, 1/2, 1/4
  for (const double expected : {0.75, 0.375, 0.1875, 0.140625}) {
    optimizer.step(half_square(optimizer, w));
    rate.step();
    EXPECT_EQ(w.item<double>(), expected);
  }
}

TEST(LearningRate, MovesTheStepsOfSam) {
  const at::Tensor w = weight(1.0);
  SharpnessAware<SGD> optimizer({w}, SGDOptions(0.5), Options().rho(0.5));
  LearningRate rate(optimizer, wsd(4, 0.5, 2, 0.0));
  // The gradient at w + 1/2, nearly: the norm of the ascent is guarded against zero.
  for (const double expected : {0.625, 0.0625, -0.21875}) {
    optimizer.step(half_square(optimizer, w));
    rate.step();
    EXPECT_NEAR(w.item<double>(), expected, 1e-9);
  }
}

TEST(LearningRate, MovesTheStepsOfAdam) {
  const at::Tensor w = weight(1.0);
  torch::optim::Adam optimizer({w}, torch::optim::AdamOptions(0.5).eps(0.0));
  LearningRate rate(optimizer, wsd(4, 0.5, 2, 0.0));
  optimizer.step(half_square(optimizer, w));
  rate.step();
  EXPECT_NEAR(w.item<double>(), 0.75, 1e-12);  // Adam's first step is as long as its learning rate
  EXPECT_EQ(rates_of(optimizer)[0], 0.5);
}

/// A training of two groups whose state, learning rates included, is passed on by files alone.
template <class Optimizer, class OptimizerOptions>
struct Training {
  at::Tensor a, b;
  Optimizer optimizer;

  Training(const OptimizerOptions& options, double lr_of_a, double lr_of_b)
      : a(torch::linspace(-1.0, 2.0, 6, torch::kDouble).set_requires_grad(true)),
        b(torch::linspace(0.5, 1.5, 3, torch::kDouble).set_requires_grad(true)),
        optimizer({torch::optim::OptimizerParamGroup({a}), torch::optim::OptimizerParamGroup({b})}, options) {
    optimizer.param_groups()[0].options().set_lr(lr_of_a);
    optimizer.param_groups()[1].options().set_lr(lr_of_b);
  }

  void run(LearningRate& rate, int steps) {
    for (int i = 0; i < steps; ++i) {
      optimizer.step([&] {
        optimizer.zero_grad();
        const at::Tensor loss = (a.square().sum() - 2.0).square() + (b.sin() * a.slice(0, 0, 3)).sum();
        loss.backward();
        return loss;
      });
      rate.step();
    }
  }

  void take_weights(const Training& other) {
    const torch::NoGradGuard no_grad;
    a.copy_(other.a);
    b.copy_(other.b);
  }

  std::vector<std::string> everything(const LearningRate& rate) {
    std::vector<std::string> all = {saved(rate)};
    for (const at::Tensor& w : {a, b})
      all.emplace_back(static_cast<const char*>(w.data_ptr()), static_cast<size_t>(w.nbytes()));
    const std::vector<double> rates = rates_of(optimizer);
    all.emplace_back(reinterpret_cast<const char*>(rates.data()), rates.size() * sizeof(double));
    return all;
  }
};

enum class Order { RateLast, RateFirst, RateMadeAfterTheOptimizerWasLoaded };

template <class Optimizer, class OptimizerOptions>
void expect_resumes(const OptimizerOptions& options, const LearningRateFactor& factor, int saved_after, Order order) {
  using Run = Training<Optimizer, OptimizerOptions>;
  constexpr int kSteps = 22;
  Run whole(options, 0.01, 0.003);
  LearningRate whole_rate(whole.optimizer, factor);
  whole.run(whole_rate, saved_after);
  const std::string optimizer_file = saved(whole.optimizer), rate_file = saved(whole_rate);

  // The new program begins with other learning rates, and another function.
  Run resumed(options, 0.5, 0.7);
  resumed.take_weights(whole);
  whole.run(whole_rate, kSteps - saved_after);

  if (order == Order::RateMadeAfterTheOptimizerWasLoaded) load(resumed.optimizer, optimizer_file);
  LearningRate rate(resumed.optimizer, multistep({0}, 0.25));
  if (order == Order::RateLast) load(resumed.optimizer, optimizer_file);
  load(rate, rate_file);
  if (order == Order::RateFirst) load(resumed.optimizer, optimizer_file);
  EXPECT_EQ(rate.steps_made(), saved_after);
  EXPECT_EQ(rate.base_learning_rates(), (std::vector<double>{0.01, 0.003}));
  EXPECT_EQ(rates_of(resumed.optimizer),
            (std::vector<double>{0.01 * factor(saved_after), 0.003 * factor(saved_after)}));
  resumed.run(rate, kSteps - saved_after);
  EXPECT_EQ(resumed.everything(rate), whole.everything(whole_rate));
}

template <class Optimizer, class OptimizerOptions>
void expect_resumes_anywhere(const OptimizerOptions& options) {
  const std::vector<LearningRateFactor> factors = {wsd(20, 0.4, 5, 0.1), cosine_tail(20, 0.4, 5, 0.1),
                                                   warmup_cosine(20, 5, 0.1), multistep({2, 7, 13, 15}, 0.3)};
  for (size_t k = 0; k < factors.size(); ++k)
    for (const int saved_after : {3, 14, 21})  // in the warm-up, in the tail, past the end
      for (const Order order : {Order::RateLast, Order::RateFirst, Order::RateMadeAfterTheOptimizerWasLoaded}) {
        SCOPED_TRACE("factor " + std::to_string(k) + ", saved after " + std::to_string(saved_after) + ", order " +
                     std::to_string(static_cast<int>(order)));
        expect_resumes<Optimizer>(options, factors[k], saved_after, order);
      }
}

TEST(LearningRate, ResumesBitForBitOverSgd) { expect_resumes_anywhere<SGD>(SGDOptions(0.1).momentum(0.9)); }

TEST(LearningRate, ResumesBitForBitOverSam) {
  expect_resumes_anywhere<SharpnessAware<SGD>>(SGDOptions(0.1).momentum(0.9));
}

TEST(LearningRate, ResumesBitForBitOverAdam) {
  expect_resumes_anywhere<torch::optim::Adam>(torch::optim::AdamOptions(0.1));
}

TEST(LearningRate, LoadedAloneSetsTheRatesAndIsTheSameFileAgain) {
  SGD optimizer({weight(1.0)}, SGDOptions(0.5)), another({weight(1.0)}, SGDOptions(0.3));
  LearningRate rate(optimizer, multistep({2, 4}, 0.1)), loaded(another, wsd(10, 0.3, 2, 0.0));
  for (int t = 0; t < 3; ++t) rate.step();
  load(loaded, saved(rate));
  EXPECT_EQ(saved(loaded), saved(rate));
  EXPECT_EQ(rates_of(another), rates_of(optimizer));
}

TEST(LearningRate, AStepMoreThanLibTorchCanCountIsTheLastOneAgain) {
  SGD optimizer({weight(1.0)}, SGDOptions(0.5));
  LearningRate rate(optimizer, wsd(10, 0.3, 2, 0.25));
  torch::serialize::OutputArchive last;
  rate.save(last);
  const int64_t most = std::numeric_limits<unsigned>::max();
  last.write("steps_made", c10::IValue(most - 2));
  std::ostringstream file;
  last.save_to(file);
  load(rate, file.str());
  for (int i = 0; i < 4; ++i) {
    rate.step();
    EXPECT_EQ(rate.steps_made(), most - 1);
    EXPECT_EQ(rates_of(optimizer)[0], 0.125);
  }
  load(rate, saved(rate));
  EXPECT_EQ(rate.steps_made(), most - 1);
}

TEST(LearningRate, RefusesGroupsThatItWasNotMadeFor) {
  SGD optimizer({weight(1.0)}, SGDOptions(0.5));
  LearningRate rate(optimizer, wsd(10, 0.3, 2, 0.0));
  const std::string file = saved(rate);
  optimizer.add_param_group(torch::optim::OptimizerParamGroup({weight(2.0)}, std::make_unique<SGDOptions>(0.1)));
  const std::string message = message_of([&] { rate.step(); });
  EXPECT_NE(message.find("made for 1 parameter groups, the optimizer has 2: make it when"), std::string::npos)
      << message;
  EXPECT_EQ(rate.steps_made(), 0);
  EXPECT_EQ(rates_of(optimizer), (std::vector<double>{0.25, 0.1}));
  LearningRate of_two(optimizer, multistep({}, 0.5));
  const std::string refusal = message_of([&] { load(of_two, file); });
  EXPECT_NE(refusal.find("has 1 parameter groups, the optimizer has 2"), std::string::npos) << refusal;
}

/// A schedule in the middle of its way, whose checkpoint has every field in use.
struct Scheduled {
  SGD optimizer{{torch::optim::OptimizerParamGroup({weight(1.0)}), torch::optim::OptimizerParamGroup({weight(2.0)})},
                SGDOptions(0.5)};
  LearningRate rate;

  explicit Scheduled(LearningRateFactor factor) : rate(optimizer, std::move(factor)) {
    for (int t = 0; t < 4; ++t) rate.step();
  }
};

/// The message; nothing must have changed.
std::string refusal_of(Scheduled& scheduled, const std::string& file) {
  const std::string before = saved(scheduled.rate);
  const std::vector<double> rates = rates_of(scheduled.optimizer);
  const std::string message = message_of([&] { load(scheduled.rate, file); });
  EXPECT_FALSE(message.empty());
  EXPECT_EQ(saved(scheduled.rate), before);
  EXPECT_EQ(rates_of(scheduled.optimizer), rates);
  return message;
}

TEST(LearningRate, NothingChangesByADamagedCheckpoint) {
  const std::string tail = saved(Scheduled(wsd(20, 0.4, 6, 0.1)).rate);
  const std::string steps = saved(Scheduled(multistep({2, 7, 13}, 0.3)).rate);
  Scheduled present(cosine_tail(30, 0.5, 3, 0.2));

  torch::serialize::InputArchive all;
  std::istringstream stream(steps);
  all.load_from(stream);
  const std::vector<std::string> names = all.keys();
  EXPECT_EQ(names.size(), 15U);
  for (const std::string& name : names)
    for (const c10::IValue& other : {c10::IValue(), c10::IValue(std::string("x")), c10::IValue(true)}) {
      SCOPED_TRACE(name);
      EXPECT_NE(refusal_of(present, with_other_field(steps, name, other)).find("'" + name + "'"), std::string::npos);
    }

  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto expect_refusal = [&](const std::string& file, const char* name, const c10::IValue& value,
                                  const char* words) {
    const std::string message = refusal_of(present, with_other_field(file, name, value));
    EXPECT_NE(message.find(words), std::string::npos) << name << "\n" << message;
  };
  expect_refusal(tail, "learning_rate_format", int64_t{2}, "has format 2, this version reads 1");
  expect_refusal(tail, "steps_made", int64_t{-1}, "counts -1 steps; it is damaged");
  expect_refusal(tail, "steps_made", int64_t{1} << 32, "counts 4294967296 steps");
  expect_refusal(tail, "factor/kind", int64_t{3}, "no kind of learning-rate schedule with the number 3");
  expect_refusal(tail, "factor/kind", int64_t{-1}, "number -1");
  expect_refusal(tail, "factor/tail/total", int64_t{0}, "1 to 2147483647, got 0");
  expect_refusal(tail, "factor/tail/first_step", int64_t{21}, "got step 21");
  expect_refusal(tail, "factor/warmup", int64_t{13}, "at step 12, got 13");
  expect_refusal(tail, "factor/floor", nan, "floor");
  expect_refusal(tail, "groups", int64_t{3}, "has 3 parameter groups, the optimizer has 2");
  expect_refusal(tail, "base/1", nan, "for parameter group 1; it is damaged");
  expect_refusal(steps, "factor/milestones", int64_t{-1}, "has -1 milestones; it is damaged");
  expect_refusal(steps, "factor/milestones", int64_t{1} << 40, "milestones; it is damaged");
  expect_refusal(steps, "factor/milestones", int64_t{4}, "'factor/milestone/3'");
  expect_refusal(steps, "factor/milestone/1", int64_t{2}, "milestones must increase");
  expect_refusal(steps, "factor/gamma", 0.0, "gamma");
}

TEST(LearningRate, NothingChangesByAForeignCheckpoint) {
  Scheduled present(cosine_tail(30, 0.5, 3, 0.2));
  EXPECT_NE(refusal_of(present, saved(present.optimizer)).find("'learning_rate_format'"), std::string::npos);
  SharpnessAware<SGD> sam({weight(1.0)}, SGDOptions(0.5));
  EXPECT_NE(refusal_of(present, saved(sam)).find("'learning_rate_format'"), std::string::npos);
  EXPECT_NE(refusal_of(present, saved(weight(1.0))), "");
  const std::string own = saved(present.rate);
  refusal_of(present, own.substr(0, own.size() / 2));
}

}  // namespace
}  // namespace steppe::training
