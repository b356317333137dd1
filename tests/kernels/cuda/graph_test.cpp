// Ascents and whole steps in CUDA graphs: what they give when replayed, and what is refused.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/base/fused.hpp>
#include <steppe/optimizers.hpp>
#include <torch/cuda.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../../contains.hpp"
#include "../../errors.hpp"
#include "captured.hpp"

namespace steppe {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

class CudaGraph : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
    stream_ = std::make_unique<c10::cuda::CUDAStream>(c10::cuda::getStreamFromPool());
  }
  c10::cuda::CUDAStream stream() const { return *stream_; }

 private:
  std::unique_ptr<c10::cuda::CUDAStream> stream_;
};

/// A loss whose gradients need no library: w pulled to the inputs, matrices and a vector.
struct Problem {
  std::vector<at::Tensor> weights, inputs;

  explicit Problem(at::ScalarType dtype = at::kFloat) {
    torch::manual_seed(3);
    for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{{40, 30}, {7, 5, 3, 3}, {50}}) {
      weights.push_back(torch::randn(shape, dtype).to(at::kCUDA).requires_grad_());
      inputs.push_back(torch::randn(shape, dtype).to(at::kCUDA));
    }
  }
  void fill(double value) {
    for (at::Tensor& each : inputs) each.fill_(value);
  }
  at::Tensor loss() const {
    at::Tensor sum;
    for (size_t i = 0; i < weights.size(); ++i) {
      const at::Tensor part = (weights[i] - inputs[i]).pow(4).mean();
      sum = sum.defined() ? sum + part : part;
    }
    return sum;
  }
};

template <class Optimizer>
at::Tensor step(Optimizer& optimizer, const Problem& problem) {
  return optimizer.step([&] {
    at::Tensor loss = problem.loss();
    loss.backward();
    return loss;
  });
}

template <class Optimizer>
at::Tensor step_in_two_phases(Optimizer& optimizer, const Problem& problem) {
  optimizer.zero_grad();
  at::Tensor loss = problem.loss();
  loss.backward();
  optimizer.ascend(loss);
  problem.loss().backward();
  optimizer.descend();
  return loss;
}

void expect_close(const std::vector<at::Tensor>& ours, const std::vector<at::Tensor>& expected) {
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_TRUE(at::allclose(ours[i], expected[i], 1e-6, 1e-7)) << i;
}

/// Five replays of one captured step are five steps.
template <class Optimizer, class BaseOptions, class Take>
void expect_the_steps(c10::cuda::CUDAStream stream, const BaseOptions& base_options, const Options& options,
                      Take&& take) {
  Problem captured, plain;
  Optimizer ours(captured.weights, base_options, options), expected(plain.weights, base_options, options);
  for (Optimizer* each : {&ours, &expected}) each->replay_rng(false);
  at::Tensor our_loss, loss;
  for (int i = 0; i < 2; ++i)
    run_on(stream, [&] {
      take(ours, captured);
      take(expected, plain);
    });
  Captured graph(stream, [&] { our_loss = take(ours, captured); });
  expect_close(captured.weights, plain.weights);  // a capture takes no step
  EXPECT_EQ(ours.steps(), 2);
  for (int i = 0; i < 5; ++i) {
    for (Problem* each : {&captured, &plain}) each->fill(0.1 * i);
    graph.replay();
    run_on(stream, [&] { loss = take(expected, plain); });
    EXPECT_TRUE(at::allclose(our_loss, loss, 1e-6));
    EXPECT_TRUE(at::allclose(ours.report().gradient_norm, expected.report().gradient_norm, 1e-6));
    EXPECT_TRUE(at::allclose(ours.report().perturbation_norm, expected.report().perturbation_norm, 1e-6));
  }
  expect_close(captured.weights, plain.weights);
}

template <class Optimizer>
void expect_the_steps_of(c10::cuda::CUDAStream stream) {
  const SGDOptions base_options = SGDOptions(0.05).momentum(0.9);
  for (const bool fused : {true, false})
    for (const Placement placement : {Placement::Auto, Placement::Buffer, Placement::InPlace}) {
      SCOPED_TRACE("fused " + std::to_string(fused) + ", placement " + std::to_string(static_cast<int>(placement)));
      const Options options = Options().rho(0.2).fused(fused).placement(placement);
      expect_the_steps<Optimizer>(stream, base_options, options, step<Optimizer>);
      expect_the_steps<Optimizer>(stream, base_options, options, step_in_two_phases<Optimizer>);
    }
}

TEST_F(CudaGraph, RepeatsAStepOfSam_CUDA) { expect_the_steps_of<SAM<SGD>>(stream()); }
TEST_F(CudaGraph, RepeatsAStepOfAsam_CUDA) { expect_the_steps_of<ASAM<SGD>>(stream()); }
TEST_F(CudaGraph, RepeatsAStepOfZSharp_CUDA) { expect_the_steps_of<ZSharp<SGD>>(stream()); }
TEST_F(CudaGraph, RepeatsAStepOfGcsam_CUDA) { expect_the_steps_of<GCSAM<SGD>>(stream()); }
TEST_F(CudaGraph, RepeatsAStepOverRmsprop_CUDA) {
  using RMSprop = SAM<torch::optim::RMSprop>;
  expect_the_steps<RMSprop>(stream(), torch::optim::RMSpropOptions(0.01).momentum(0.9), Options(), step<RMSprop>);
}

/// Counts and rates of the device: a base that counts, and a rate that changes from replay to replay.
template <class Base, class BaseOptions>
void expect_a_schedule_over(c10::cuda::CUDAStream stream, const BaseOptions& base_options) {
  Problem captured, plain;
  SAM<Fused<Base>> ours(captured.weights, base_options);
  SAM<Base> expected(plain.weights, base_options);
  ours.replay_rng(false);
  for (int i = 0; i < 2; ++i)
    run_on(stream, [&] {
      step(ours, captured);
      step(expected, plain);
    });
  Captured graph(stream, [&] { step(ours, captured); });
  for (int i = 0; i < 6; ++i) {
    for (Problem* each : {&captured, &plain}) each->fill(0.1 * i);
    const double rate = base_options.lr() / (1.0 + i);
    ours.param_groups()[0].options().set_lr(rate);
    expected.param_groups()[0].options().set_lr(rate);
    run_on(stream, [&] { ours.refresh_learning_rates(); });
    graph.replay();
    run_on(stream, [&] { step(expected, plain); });
  }
  expect_close(captured.weights, plain.weights);
  ours.synchronize_counts();
  run_on(stream, [&] {  // not captured, from where the graph has counted to
    step(ours, captured);
    step(expected, plain);
  });
  expect_close(captured.weights, plain.weights);
}
TEST_F(CudaGraph, FollowsAScheduleOverFusedSgd_CUDA) {
  expect_a_schedule_over<SGD>(stream(), SGDOptions(0.05).momentum(0.9));
}
TEST_F(CudaGraph, FollowsAScheduleOverFusedAdam_CUDA) {
  expect_a_schedule_over<torch::optim::Adam>(stream(), torch::optim::AdamOptions(0.01));
}
TEST_F(CudaGraph, FollowsAScheduleOverFusedAdamW_CUDA) {
  expect_a_schedule_over<torch::optim::AdamW>(stream(), torch::optim::AdamWOptions(0.01));
}

TEST_F(CudaGraph, AStepThatOverflowsIsSkippedOnTheDevice_CUDA) {
  for (const bool first : {true, false}) {
    const at::Tensor w = at::ones({50}, at::TensorOptions().device(at::kCUDA)).requires_grad_();
    Fused<SGD> sgd({w}, SGDOptions(0.1).momentum(0.9).dampening(0.5));
    w.mutable_grad() = at::ones_like(w);
    if (!first) sgd.step();
    const at::Tensor before = w.detach().clone();
    sgd.skip_where(at::ones({1}, at::TensorOptions().device(at::kCUDA)));
    sgd.step();
    EXPECT_TRUE(w.equal(before));
    sgd.step();
    EXPECT_TRUE(at::allclose(before - w.detach(), at::full_like(before, first ? 0.1 : 0.14)));
  }
}

TEST_F(CudaGraph, RepeatsAnAscentAndTheWayBackBitForBit_CUDA) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const Problem problem(dtype);
    std::vector<at::Tensor> moved, before;
    for (const at::Tensor& w : problem.weights) {
      moved.push_back(at::zeros_like(w));
      before.push_back(w.detach().clone());
    }
    AscentGroup group;
    group.params = problem.weights;
    group.gradients = problem.inputs;
    group.rho = 0.5;
    const auto memory = std::make_shared<PerturbationMemory>();
    const auto ascend = [&] {
      const c10::NoGradGuard no_grad;
      const Perturbation at({group}, memory);
      for (size_t i = 0; i < moved.size(); ++i) moved[i].copy_(problem.weights[i]);
    };
    run_on(stream(), ascend);
    std::vector<at::Tensor> expected;
    for (at::Tensor& each : moved) expected.push_back(each.clone());
    Captured graph(stream(), ascend);
    for (int again = 0; again < 2; ++again) {
      for (at::Tensor& each : moved) each.zero_();
      graph.replay();
      for (size_t i = 0; i < moved.size(); ++i) {
        EXPECT_TRUE(moved[i].equal(expected[i])) << i;
        EXPECT_FALSE(moved[i].equal(before[i])) << i;
        EXPECT_TRUE(problem.weights[i].equal(before[i])) << i;
      }
    }
  }
}

TEST_F(CudaGraph, OutlastsStepsOverOtherParametersAndOnAnotherStream_CUDA) {
  Problem captured, plain;
  SAM<SGD> ours(captured.weights, SGDOptions(0.05)), expected(plain.weights, SGDOptions(0.05));
  for (SAM<SGD>* each : {&ours, &expected}) each->replay_rng(false);
  const auto both = [&] {
    step(ours, captured);
    step(expected, plain);
  };
  run_on(stream(), both);
  Captured graph(stream(), [&] { step(ours, captured); });
  run_on(stream(), [&] { step(expected, plain); });
  graph.replay();
  // The kernels use other tables and scratch from here on; the graph keeps its own.
  ours.only({captured.weights[0]});
  expected.only({plain.weights[0]});
  run_on(stream(), both);
  both();
  run_on(stream(), both);
  const at::Tensor elsewhere = torch::full({1 << 20}, 7.0f, at::kCUDA);
  expected.only(plain.weights);
  run_on(stream(), [&] { step(expected, plain); });
  graph.replay();
  expect_close(captured.weights, plain.weights);
  EXPECT_TRUE(elsewhere.eq(7.0f).all().item<bool>());
}

TEST_F(CudaGraph, CountsNonFiniteStepsWhereItIsReplayed_CUDA) {
  for (const bool fused : {true, false}) {
    Problem problem;
    SAM<SGD> sam(problem.weights, SGDOptions(0.0), Options().fused(fused));
    sam.replay_rng(false);
    sam.before_descent([](std::vector<at::Tensor>& gradients) {  // the weights stay finite
      for (at::Tensor& g : gradients) g.zero_();
    });
    run_on(stream(), [&] { step(sam, problem); });
    Captured graph(stream(), [&] { step(sam, problem); });
    graph.replay();
    EXPECT_EQ(sam.non_finite_steps(), 0);
    problem.fill(std::numeric_limits<double>::infinity());
    for (int i = 0; i < 3; ++i) graph.replay();
    EXPECT_EQ(sam.non_finite_steps(), 3);
    problem.fill(0.0);
    graph.replay();
    EXPECT_EQ(sam.non_finite_steps(), 3);
  }
}

/// The error of a capture after one step and the change; the weights must be as they were.
template <class Optimizer, class Change>
std::string refusal_of(c10::cuda::CUDAStream stream, Optimizer& optimizer, const Problem& problem, Change&& change) {
  optimizer.replay_rng(false);
  run_on(stream, [&] { step(optimizer, problem); });
  change(optimizer);
  std::vector<at::Tensor> before;
  for (const at::Tensor& w : problem.weights) before.push_back(w.detach().clone());
  const std::string message = message_of([&] { const Captured graph(stream, [&] { step(optimizer, problem); }); });
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(problem.weights[i].equal(before[i]));
  return message;
}

template <class Change>
std::string refusal_of_sam(c10::cuda::CUDAStream stream, Change&& change) {
  const Problem problem;
  SAM<SGD> sam(problem.weights, SGDOptions(0.1), Options().rho(0.2));
  return refusal_of(stream, sam, problem, change);
}

TEST_F(CudaGraph, AFirstStepIsRefused_CUDA) {
  for (const bool fused : {true, false}) {
    const Problem problem;
    SAM<SGD> sam(problem.weights, SGDOptions(0.1), Options().fused(fused));
    sam.replay_rng(false);
    const std::string message = message_of([&] { const Captured graph(stream(), [&] { step(sam, problem); }); });
    EXPECT_TRUE(contains(message, "before one has run")) << message;
  }
}

#ifdef STEPPE_WITH_CUDA
TEST_F(CudaGraph, AnAscentOverOtherTensorsThanBeforeIsRefused_CUDA) {
  const Problem problem;
  SAM<SGD> sam(problem.weights, SGDOptions(0.1));
  sam.only({problem.weights[0], problem.weights[1]});
  const std::string message = refusal_of(stream(), sam, problem, [&](auto&) { sam.only(problem.weights); });
  EXPECT_TRUE(contains(message, "run a step before each capture")) << message;
}

TEST_F(CudaGraph, ASecondCaptureNeedsAStepInBetween_CUDA) {
  const Problem problem;
  SAM<SGD> sam(problem.weights, SGDOptions(0.1));
  std::unique_ptr<Captured> first;
  const auto capture = [&](auto&) { first = std::make_unique<Captured>(stream(), [&] { step(sam, problem); }); };
  const std::string message = refusal_of(stream(), sam, problem, capture);
  EXPECT_TRUE(contains(message, "run a step before each capture")) << message;
  EXPECT_EQ(refusal_of(stream(), sam, problem, [](auto&) {}), "");
}
#endif

TEST_F(CudaGraph, RandomNumbersOfPassOneInPassTwoAreRefused_CUDA) {
  const std::string message = refusal_of_sam(stream(), [](SAM<SGD>& sam) { sam.replay_rng(true); });
  EXPECT_TRUE(contains(message, "replay_rng(false)")) << message;
}

TEST_F(CudaGraph, StepsThatAreNotAllAlikeAreRefused_CUDA) {
  const std::string every = refusal_of_sam(stream(), [](SAM<SGD>& sam) { sam.every(2); });
  EXPECT_TRUE(contains(every, "every(k)")) << every;
  const std::string late = refusal_of_sam(stream(), [](SAM<SGD>& sam) { sam.from_step(100); });
  EXPECT_TRUE(contains(late, "from_step(n)")) << late;
  const std::string over = refusal_of_sam(stream(), [](SAM<SGD>& sam) { sam.from_step(1); });
  EXPECT_EQ(over, "");
}

TEST_F(CudaGraph, SchedulesAreRefused_CUDA) {
  const std::string rho =
      refusal_of_sam(stream(), [](SAM<SGD>& sam) { sam.rho_schedule(schedule::linear(0.1, 0.2, 50)); });
  EXPECT_TRUE(contains(rho, "schedule")) << rho;
  const Problem problem;
  ZSharp<SGD> zsharp(problem.weights, SGDOptions(0.1));
  const std::string percentile = refusal_of(stream(), zsharp, problem, [](ZSharp<SGD>& each) {
    each.ascent().percentile_schedule(schedule::linear(0.9, 0.95, 50));
  });
  EXPECT_TRUE(contains(percentile, "percentile")) << percentile;
  const std::string constant =
      refusal_of_sam(stream(), [](SAM<SGD>& sam) { sam.rho_schedule(schedule::constant(0.1)); });
  EXPECT_EQ(constant, "");
}

TEST_F(CudaGraph, AScheduleOfDeviationAwareScalingIsRefused_CUDA) {
  const Problem problem;
  SAM<DAS<SGD>> sam(problem.weights, SGDOptions(0.1));
  EXPECT_EQ(refusal_of(stream(), sam, problem, [](auto&) {}), "");
  const std::string message = refusal_of(
      stream(), sam, problem, [](auto& each) { each.scaling().alpha_schedule(schedule::linear(0.01, 0.1, 50)); });
  EXPECT_TRUE(contains(message, "keeps its alpha")) << message;
}

TEST_F(CudaGraph, BasesThatCountStepsOnTheHostAreRefused_CUDA) {
  const Problem problem;
  SAM<torch::optim::Adam> adam(problem.weights, torch::optim::AdamOptions(1e-3));
  const std::string message = refusal_of(stream(), adam, problem, [](auto&) {});
  EXPECT_TRUE(contains(message, "number of steps")) << message;
}

TEST_F(CudaGraph, MemoryThatAGraphWritesToIsNotReleased_CUDA) {
  const Problem problem;
  SAM<SGD> sam(problem.weights, SGDOptions(0.1));
  sam.replay_rng(false);
  run_on(stream(), [&] { step(sam, problem); });
  sam.release_memory();
  run_on(stream(), [&] { step(sam, problem); });
  const Captured graph(stream(), [&] { step(sam, problem); });
  EXPECT_TRUE(contains(message_of([&] { sam.release_memory(); }), "CUDA graph"));
}

}  // namespace
}  // namespace steppe
