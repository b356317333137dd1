// Steps made of several parts: micro-batches of one process, and processes.
// SPDX-License-Identifier: MIT
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/sgd.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>

#include "../errors.hpp"
#include "thread_exchange.hpp"

namespace steppe {
namespace {

using torch::optim::SGD;

constexpr int64_t kSamples = 12;

struct ProblemInParts {
  explicit ProblemInParts(bool normalized = false) {
    torch::manual_seed(3);
    model->push_back(torch::nn::Linear(5, 8));
    if (normalized) model->push_back(torch::nn::BatchNorm1d(8));
    model->push_back(torch::nn::Tanh());
    model->push_back(torch::nn::Linear(8, 3));
    x = torch::randn({kSamples, 5});
    y = torch::randint(0, 3, {kSamples});
  }
  /// Of the `part`-th of `parts` equal shares of the samples.
  at::Tensor backward(int64_t part, int64_t parts) {
    const int64_t count = kSamples / parts;
    const at::Tensor loss =
        torch::cross_entropy_loss(model->forward(x.narrow(0, part * count, count)), y.narrow(0, part * count, count));
    loss.backward();
    return loss;
  }
  std::vector<at::Tensor> weights() const {
    std::vector<at::Tensor> all;
    for (const at::Tensor& param : model->parameters()) all.push_back(param.detach().clone());
    return all;
  }

  torch::nn::Sequential model;
  at::Tensor x, y;
};

bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!torch::equal(a[i], b[i])) return false;
  return a.size() == b.size();
}
double distance(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) largest = (std::max)(largest, (a[i] - b[i]).abs().max().item<double>());
  return largest;
}

template <class Function, class... Words>
void expect_error_with(Function&& function, const Words&... words) {
  const std::string message = message_of(function);
  for (const std::string& word : {std::string(words)...}) EXPECT_NE(message.find(word), std::string::npos) << message;
}

template <class Optimizer>
Optimizer made(const ProblemInParts& problem) {
  Optimizer optimizer(*problem.model, torch::optim::SGDOptions(0.1).momentum(0.9));
  optimizer.rho_schedule(schedule::constant(0.3));
  return optimizer;
}

/// `steps` on as many threads; the weights of each.
template <class Optimizer>
std::vector<std::vector<at::Tensor>> by_processes(int64_t processes, Perturb perturb, int steps,
                                                  const std::function<void(Optimizer&)>& settings = {}) {
  std::vector<std::vector<at::Tensor>> weights(static_cast<size_t>(processes));
  std::vector<std::unique_ptr<ProblemInParts>> problems;  // one generator makes them
  for (int64_t r = 0; r < processes; ++r) problems.push_back(std::make_unique<ProblemInParts>());
  const std::vector<std::string> errors =
      run_processes(processes, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
        ProblemInParts& problem = *problems[static_cast<size_t>(r)];
        auto optimizer = made<Optimizer>(problem);
        if (settings) settings(optimizer);
        optimizer.exchange(exchange, perturb);
        for (int k = 0; k < steps; ++k) optimizer.step([&] { return problem.backward(r, processes); });
        weights[static_cast<size_t>(r)] = problem.weights();
      });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
  return weights;
}

template <class Optimizer>
std::vector<at::Tensor> by_parts(int64_t parts, Perturb perturb, int steps,
                                 const std::function<void(Optimizer&)>& settings = {}) {
  ProblemInParts problem;
  auto optimizer = made<Optimizer>(problem);
  if (settings) settings(optimizer);
  optimizer.perturb(perturb);
  for (int k = 0; k < steps; ++k) optimizer.step(parts, [&](int64_t i) { return problem.backward(i, parts); });
  return problem.weights();
}

template <class Optimizer>
std::vector<at::Tensor> of_whole_batch(int steps, const std::function<void(Optimizer&)>& settings = {}) {
  ProblemInParts problem;
  auto optimizer = made<Optimizer>(problem);
  if (settings) settings(optimizer);
  for (int k = 0; k < steps; ++k) optimizer.step([&] { return problem.backward(0, 1); });
  return problem.weights();
}

template <class Optimizer>
struct Steps : testing::Test {};

using Stateless = testing::Types<SAM<SGD>, ASAM<SGD>, ZSharp<SGD>, GCSAM<SGD>, GSAM<SGD>, StableSAM<SGD>, LookSAM<SGD>,
                                 XSAM<SGD>, MSAM<SGD>>;
TYPED_TEST_SUITE(Steps, Stateless);

TYPED_TEST(Steps, OfTwoProcessesAreThoseOfTwoPartsBitForBit) {
  const auto each = by_processes<TypeParam>(2, Perturb::Each, 6);
  EXPECT_TRUE(same(each[0], each[1]));
  EXPECT_TRUE(same(each[0], by_parts<TypeParam>(2, Perturb::Each, 6)));
}

TYPED_TEST(Steps, OfPartsPerturbedTogetherAreThoseOfTheWholeBatch) {
  const auto together = by_processes<TypeParam>(2, Perturb::Together, 6);
  EXPECT_TRUE(same(together[0], together[1]));
  EXPECT_TRUE(same(together[0], by_parts<TypeParam>(2, Perturb::Together, 6)));
  EXPECT_LT(distance(together[0], of_whole_batch<TypeParam>(6)), 2e-6);
  EXPECT_LT(distance(by_processes<TypeParam>(3, Perturb::Together, 6)[2], by_parts<TypeParam>(4, Perturb::Together, 6)),
            2e-6);
}

TYPED_TEST(Steps, WithoutASecondPassAreThoseOfTheBase) {
  const auto plain = [](TypeParam& optimizer) { optimizer.from_step(100); };
  const auto whole = of_whole_batch<TypeParam>(4, plain);
  for (const Perturb perturb : {Perturb::Each, Perturb::Together}) {
    EXPECT_LT(distance(by_processes<TypeParam>(2, perturb, 4, plain)[1], whole), 2e-6);
    EXPECT_LT(distance(by_parts<TypeParam>(3, perturb, 4, plain), whole), 2e-6);
  }
}

TEST(StepOfParts, IsTheMeanOfTheSecondGradientsOfEach) {
  ProblemInParts problem;
  SAM<SGD> sam(*problem.model, torch::optim::SGDOptions(0.1), Options().rho(0.3));
  const auto params = problem.model->parameters();
  const auto before = problem.weights();
  std::vector<at::Tensor> sum;
  double first_losses = 0.0, second_losses = 0.0;
  for (int64_t part = 0; part < 3; ++part) {  // by hand
    problem.model->zero_grad();
    first_losses += problem.backward(part, 3).item<double>();
    double squares = 0.0;
    for (const at::Tensor& param : params) squares += param.grad().pow(2).sum().item<double>();
    const c10::NoGradGuard no_grad;
    for (const at::Tensor& param : params) param.detach().add_(param.grad(), 0.3 / std::sqrt(squares));
    problem.model->zero_grad();
    {
      const c10::AutoGradMode grad(true);
      second_losses += problem.backward(part, 3).item<double>();
    }
    for (size_t i = 0; i < params.size(); ++i) {
      params[i].detach().copy_(before[i]);
      if (part == 0)
        sum.push_back(params[i].grad().clone());
      else
        sum[i] += params[i].grad();
    }
  }
  const at::Tensor loss = sam.step(3, [&](int64_t part) { return problem.backward(part, 3); });
  EXPECT_NEAR(loss.item<double>(), first_losses / 3, 1e-6);
  EXPECT_NEAR(sam.report().perturbed_loss.item<double>(), second_losses / 3, 1e-6);
  EXPECT_NEAR(sam.report().sharpness.item<double>(), (second_losses - first_losses) / 3, 1e-6);
  for (size_t i = 0; i < params.size(); ++i)
    EXPECT_LT((params[i].detach() - (before[i] - 0.1 * sum[i] / 3.0)).abs().max().item<double>(), 1e-6);
}

TEST(StepOfParts, OneIsAStepOfItsClosure) {
  EXPECT_TRUE(same(by_parts<SAM<SGD>>(1, Perturb::Each, 4), of_whole_batch<SAM<SGD>>(4)));
}

TEST(StepOfParts, WhichClearTheGradientsAreThoseThatDoNot) {
  for (const Perturb perturb : {Perturb::Each, Perturb::Together}) {
    ProblemInParts problem;
    auto sam = made<SAM<SGD>>(problem);
    sam.perturb(perturb);
    for (int k = 0; k < 4; ++k)
      sam.step(3, [&](int64_t i) {
        problem.model->zero_grad();
        return problem.backward(i, 3);
      });
    EXPECT_TRUE(same(problem.weights(), by_parts<SAM<SGD>>(3, perturb, 4)));
  }
}

TEST(StepOfParts, PerturbedByAnotherBatchSeeItsGradientWhole) {
  ProblemInParts in_parts, whole;
  auto a = made<SAM<SGD>>(in_parts), b = made<SAM<SGD>>(whole);
  a.perturb(Perturb::Together).ascend_on([&] { return in_parts.backward(0, 2); });
  b.ascend_on([&] { return whole.backward(0, 2); });
  for (int k = 0; k < 3; ++k) {
    a.step(3, [&](int64_t i) { return in_parts.backward(i, 3); });
    b.step([&] { return whole.backward(0, 1); });
    EXPECT_NEAR(a.report().gradient_norm.item<double>(), b.report().gradient_norm.item<double>(), 1e-6);
  }
  EXPECT_LT(distance(in_parts.weights(), whole.weights()), 2e-6);
}

TEST(StepOfParts, ThatAreNotFiniteCountOnce) {
  ProblemInParts problem;
  problem.x.fill_(std::numeric_limits<float>::quiet_NaN());
  auto sam = made<SAM<SGD>>(problem);
  sam.step(3, [&](int64_t i) { return problem.backward(i, 3); });
  EXPECT_EQ(sam.non_finite_steps(), 1);
}

TEST(StepOfParts, LeavesTheBuffersOfPassOne) {
  ProblemInParts stepped(true), plain(true);
  SAM<SGD> sam(*stepped.model, torch::optim::SGDOptions(0.1));
  sam.step(3, [&](int64_t part) { return stepped.backward(part, 3); });
  for (int64_t part = 0; part < 3; ++part) plain.backward(part, 3);
  EXPECT_TRUE(same(stepped.model->buffers(), plain.model->buffers()));
}

TEST(StepOfParts, ThatThrowsLeavesEverythingAsItWas) {
  ProblemInParts problem(true);
  SAM<SGD> sam(*problem.model, torch::optim::SGDOptions(0.1).momentum(0.9));
  sam.step(3, [&](int64_t part) { return problem.backward(part, 3); });
  const auto before = problem.weights();
  std::vector<at::Tensor> buffers;
  for (const at::Tensor& buffer : problem.model->buffers()) buffers.push_back(buffer.clone());
  int calls = 0;
  expect_error_with(
      [&] {
        sam.step(3, [&](int64_t part) {
          TORCH_CHECK(++calls < 4, "in the second pass of the second part");
          return problem.backward(part, 3);
        });
      },
      "second part");
  EXPECT_TRUE(same(before, problem.weights()));
  EXPECT_TRUE(same(buffers, problem.model->buffers()));
  EXPECT_EQ(sam.steps(), 1);
}

TEST(StepOfParts, GradientsOfTheProgramsOwnMemoryAreAddedUp) {
  ProblemInParts own, plain;
  const auto params = own.model->parameters();
  std::vector<at::Tensor> flat;
  for (const at::Tensor& param : params) {
    flat.push_back(torch::zeros({2, param.numel()}));  // a section of a larger tensor
    param.mutable_grad() = flat.back()[0].view(param.sizes());
  }
  SAM<SGD> a(*own.model, torch::optim::SGDOptions(0.1)), b(*plain.model, torch::optim::SGDOptions(0.1));
  for (int k = 0; k < 3; ++k) {
    a.step(3, [&](int64_t part) { return own.backward(part, 3); });
    b.step(3, [&](int64_t part) { return plain.backward(part, 3); });
  }
  EXPECT_TRUE(same(own.weights(), plain.weights()));
  for (size_t i = 0; i < params.size(); ++i) EXPECT_EQ(params[i].grad().data_ptr(), flat[i].data_ptr());
}

TEST(StepOfParts, WhatCannotBeDoneByEachIsAnErrorThatNamesTogether) {
  ProblemInParts problem;
  const auto part = [&](int64_t i) { return problem.backward(i, 3); };
  FriendlySAM<SGD> friendly(*problem.model, torch::optim::SGDOptions(0.1));
  expect_error_with([&] { friendly.step(3, part); }, "earlier gradients", "Perturb::Together");
  AESAM<SGD> adaptive(*problem.model, torch::optim::SGDOptions(0.1));
  adaptive.policy().total(10);
  expect_error_with([&] { adaptive.step(3, part); }, "decides", "Perturb::Together");
  SAM<SGD> sam(*problem.model, torch::optim::SGDOptions(0.1));
  expect_error_with([&] { sam.step(0, part); }, "at least one part", "0 parts");
  friendly.perturb(Perturb::Together).step(3, part);
  adaptive.perturb(Perturb::Together).step(3, part);
}

TEST(StepOfProcesses, AverageOnceForEachAndTwiceTogether) {
  for (const Perturb perturb : {Perturb::Each, Perturb::Together})
    run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
      static std::mutex making;
      std::unique_lock<std::mutex> lock(making);
      ProblemInParts problem;
      lock.unlock();
      auto sam = made<SAM<SGD>>(problem);
      sam.exchange(exchange, perturb).every(2);
      sam.step([&] { return problem.backward(r, 2); });
      EXPECT_EQ(exchange->finished, perturb == Perturb::Each ? 1 : 2);
      sam.step([&] { return problem.backward(r, 2); });  // a plain one
      EXPECT_EQ(exchange->finished, perturb == Perturb::Each ? 2 : 3);
      EXPECT_EQ(exchange->begun, exchange->finished);
      EXPECT_EQ(exchange->summed, 2);
    });
}

TEST(StepOfProcesses, TheLossIsTheMean) {
  std::vector<double> seen(2), own(2);
  std::vector<std::unique_ptr<ProblemInParts>> problems;
  for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ProblemInParts>());
  run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
    ProblemInParts& problem = *problems[static_cast<size_t>(r)];
    auto sam = made<SAM<SGD>>(problem);
    sam.exchange(exchange);
    const at::Tensor loss = sam.step([&] {
      const at::Tensor mine = problem.backward(r, 2);
      if (own[static_cast<size_t>(r)] == 0.0) own[static_cast<size_t>(r)] = mine.item<double>();
      return mine;
    });
    seen[static_cast<size_t>(r)] = loss.item<double>();
    EXPECT_EQ(loss.scalar_type(), at::kFloat);
    EXPECT_EQ(sam.report().loss.item<double>(), loss.item<double>());
  });
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_NEAR(seen[0], (own[0] + own[1]) / 2, 1e-7);
}

/// One process has a batch without a gradient, in every second step.
TEST(StepOfProcesses, AreMadeByAProcessWithoutGradientsToo) {
  for (const Perturb perturb : {Perturb::Each, Perturb::Together}) {
    std::vector<std::vector<at::Tensor>> weights(2);
    std::vector<std::unique_ptr<ProblemInParts>> problems;
    for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ProblemInParts>());
    std::vector<int64_t> finished(2);
    const auto errors = run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
      ProblemInParts& problem = *problems[static_cast<size_t>(r)];
      auto sam = made<SAM<SGD>>(problem);
      sam.exchange(exchange, perturb);
      for (int k = 0; k < 4; ++k)
        sam.step([&] { return r == 1 && k % 2 == 1 ? at::Tensor() : problem.backward(r, 2); });
      weights[static_cast<size_t>(r)] = problem.weights();
      finished[static_cast<size_t>(r)] = exchange->finished;
    });
    EXPECT_EQ(errors[0] + errors[1], "");
    EXPECT_TRUE(same(weights[0], weights[1]));
    EXPECT_EQ(finished[0], finished[1]);
  }
}

TEST(StepOfProcesses, AreTheSameInAllThreeWays) {
  for (const Perturb perturb : {Perturb::Each, Perturb::Together}) {
    const auto closures = by_processes<ASAM<SGD>>(2, perturb, 5, [](ASAM<SGD>& sam) { sam.every(2); });
    for (const bool two_phase : {false, true}) {
      std::vector<std::vector<at::Tensor>> weights(2);
      std::vector<std::unique_ptr<ProblemInParts>> problems;
      for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ProblemInParts>());
      const auto errors = run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
        ProblemInParts& problem = *problems[static_cast<size_t>(r)];
        auto sam = made<ASAM<SGD>>(problem);
        sam.every(2).exchange(exchange, perturb);
        for (int k = 0; k < 5; ++k) {
          sam.zero_grad();
          const at::Tensor loss = problem.backward(r, 2);
          if (!two_phase) {
            sam.step();
          } else {
            if (sam.ascend(loss)) problem.backward(r, 2);
            sam.descend();
          }
        }
        weights[static_cast<size_t>(r)] = problem.weights();
      });
      EXPECT_EQ(errors[0] + errors[1], "");
      EXPECT_TRUE(same(weights[0], closures[0])) << two_phase;
      EXPECT_TRUE(same(weights[1], closures[1])) << two_phase;
    }
  }
}

TEST(StepOfProcesses, APolicyDecidesByTheMeanGradient) {
  std::vector<std::string> decisions(2);
  for (const Perturb perturb : {Perturb::Each, Perturb::Together}) {
    std::vector<std::unique_ptr<ProblemInParts>> problems;
    for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ProblemInParts>());
    std::string of_whole;
    ProblemInParts whole;
    auto reference = made<AESAM<SGD>>(whole);
    reference.policy().total(12).c_last(1.0);
    for (int k = 0; k < 12; ++k) {
      reference.step([&] { return whole.backward(0, 1); });
      of_whole += reference.report().perturbed ? '1' : '0';
    }
    decisions.assign(2, "");
    const auto errors = run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
      ProblemInParts& problem = *problems[static_cast<size_t>(r)];
      auto sam = made<AESAM<SGD>>(problem);
      sam.policy().total(12).c_last(1.0);
      sam.exchange(exchange, perturb);
      for (int k = 0; k < 12; ++k) {
        sam.step([&] { return problem.backward(r, 2); });
        decisions[static_cast<size_t>(r)] += sam.report().perturbed ? '1' : '0';
      }
    });
    EXPECT_EQ(errors[0] + errors[1], "");
    EXPECT_EQ(decisions[0], decisions[1]);
    EXPECT_NE(decisions[0].find('0'), std::string::npos);
    EXPECT_NE(decisions[0].find('1'), std::string::npos);
    if (perturb == Perturb::Together) {
      EXPECT_EQ(decisions[0], of_whole);
    }
  }
}

TEST(StepOfProcesses, OfWhichOneIsNotFiniteIsAnErrorOnAll) {
  for (const Perturb perturb : {Perturb::Each, Perturb::Together}) {
    std::vector<std::unique_ptr<ProblemInParts>> problems;
    for (int r = 0; r < 3; ++r) problems.push_back(std::make_unique<ProblemInParts>());
    const auto before = problems[0]->weights();
    problems[1]->x.fill_(std::numeric_limits<float>::quiet_NaN());
    const auto errors = run_processes(3, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
      ProblemInParts& problem = *problems[static_cast<size_t>(r)];
      auto sam = made<SAM<SGD>>(problem);
      sam.exchange(exchange, perturb);
      sam.step([&] { return problem.backward(r, 3); });
    });
    for (int r = 0; r < 3; ++r) {
      EXPECT_NE(errors[static_cast<size_t>(r)].find("process 1 of 3 is not finite"), std::string::npos)
          << errors[static_cast<size_t>(r)];
      EXPECT_TRUE(same(before, problems[static_cast<size_t>(r)]->weights()));
    }
  }
}

/// The loss is finite, and so are all losses of a plain step.
TEST(StepOfProcesses, OfWhichOneGradientAloneIsNotFiniteIsAnErrorOnAll) {
  for (const bool plain : {false, true}) {
    std::vector<std::unique_ptr<ProblemInParts>> problems;
    for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ProblemInParts>());
    const auto before = problems[0]->weights();
    const auto errors = run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
      ProblemInParts& problem = *problems[static_cast<size_t>(r)];
      auto sam = made<SAM<SGD>>(problem);
      sam.exchange(exchange);
      if (plain) sam.from_step(10);
      int calls = 0;
      sam.step([&] {
        const at::Tensor loss = problem.backward(r, 2);
        if (r == 1 && ++calls == (plain ? 1 : 2))
          problem.model->parameters()[0].mutable_grad().fill_(std::numeric_limits<float>::infinity());
        return loss;
      });
    });
    for (const std::string& error : errors) EXPECT_NE(error.find("process 1 of 2"), std::string::npos) << error;
    for (const auto& problem : problems) EXPECT_TRUE(same(before, problem->weights()));
  }
}

TEST(StepOfProcesses, ThatAlwaysMakeASecondPassAverageAsOftenWithoutGradients) {
  std::vector<std::unique_ptr<ProblemInParts>> problems;
  for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ProblemInParts>());
  const auto errors = run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
    ProblemInParts& problem = *problems[static_cast<size_t>(r)];
    auto sam = made<SAM<SGD>>(problem);
    sam.exchange(exchange).every(2);
    for (int k = 0; k < 4; ++k) {
      sam.zero_grad();
      problem.backward(r, 2);
      sam.ascend();
      if (r == 0) problem.backward(r, 2);
      sam.descend();
    }
  });
  EXPECT_EQ(errors[0] + errors[1], "");
  EXPECT_TRUE(same(problems[0]->weights(), problems[1]->weights()));
}

TEST(StepOfProcesses, AnExchangeLeavesPerturbAsItIs) {
  const auto together = by_processes<SAM<SGD>>(2, Perturb::Together, 3);
  std::vector<std::unique_ptr<ProblemInParts>> problems;
  for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ProblemInParts>());
  run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
    ProblemInParts& problem = *problems[static_cast<size_t>(r)];
    auto sam = made<SAM<SGD>>(problem);
    sam.perturb(Perturb::Together).exchange(exchange);
    for (int k = 0; k < 3; ++k) sam.step([&] { return problem.backward(r, 2); });
  });
  EXPECT_TRUE(same(together[0], problems[0]->weights()));
}

TEST(StepOfProcesses, AnExceptionOfOneEndsTheStepsOfAll) {
  std::vector<std::unique_ptr<ProblemInParts>> problems;
  for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ProblemInParts>());
  const auto before = problems[0]->weights();
  const auto errors = run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
    ProblemInParts& problem = *problems[static_cast<size_t>(r)];
    auto sam = made<SAM<SGD>>(problem);
    sam.exchange(exchange);
    sam.step([&] {
      TORCH_CHECK(r != 1, "the disk is full");
      return problem.backward(r, 2);
    });
  });
  EXPECT_NE(errors[1].find("the disk is full"), std::string::npos);
  EXPECT_NE(errors[0].find("process 1 left its step: the disk is full"), std::string::npos) << errors[0];
  for (const auto& problem : problems) EXPECT_TRUE(same(before, problem->weights()));
}

TEST(StepOfProcesses, LBFGSGoesByTheMeanLoss) {
  using torch::optim::LBFGS;
  std::vector<std::unique_ptr<ProblemInParts>> problems;
  for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ProblemInParts>());
  ProblemInParts whole;
  const auto options = torch::optim::LBFGSOptions(0.1).max_iter(3);
  const auto errors = run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
    ProblemInParts& problem = *problems[static_cast<size_t>(r)];
    SAM<LBFGS> sam(*problem.model, options);
    sam.exchange(exchange, Perturb::Together);
    for (int k = 0; k < 3; ++k) sam.step([&] { return problem.backward(r, 2); });
  });
  EXPECT_EQ(errors[0] + errors[1], "");
  SAM<LBFGS> sam(*whole.model, options);
  for (int k = 0; k < 3; ++k) sam.step([&] { return whole.backward(0, 1); });
  EXPECT_TRUE(same(problems[0]->weights(), problems[1]->weights()));
  EXPECT_LT(distance(problems[0]->weights(), whole.weights()), 1e-5);
}

}  // namespace
}  // namespace steppe
