// Gradients clipped by the optimizer, in every way of stepping, as by LibTorch's own functions in before_descent().
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <functional>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "loop.hpp"

namespace steppe::plain_loops {
namespace {

using torch::optim::AdamW;
using torch::optim::AdamWOptions;
using torch::optim::OptimizerParamGroup;
using torch::optim::SGD;
using torch::optim::SGDOptions;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// How a step is made, and who clips.
enum class How { LibTorchsFunctions, Closure, Plain, TwoPhase };

struct Clipping {
  double norm = 0.0, norm_type = 2.0, value = 0.0;
};

template <class Optimizer, class Pass>
void step_as(How how, Optimizer& optimizer, Pass&& pass) {
  if (how == How::LibTorchsFunctions || how == How::Closure) {
    step(Way::Closure, optimizer, pass);
  } else if (how == How::Plain) {
    step(Way::Plain, optimizer, pass);
  } else {
    optimizer.zero_grad();
    optimizer.remember_rng();
    if (optimizer.ascend(pass())) pass();
    optimizer.descend();
  }
}

/// What training leaves, with the norm before clipping after each step.
template <class Optimizer, class BaseOptions>
Trace train(How how, const Clipping& clipping, const BaseOptions& options, int64_t every = 1) {
  torch::manual_seed(11);
  Net model;
  std::vector<OptimizerParamGroup> groups;
  groups.emplace_back(model.first->parameters(), std::make_unique<BaseOptions>(options));
  std::vector<at::Tensor> rest = model.norm->parameters();
  for (const at::Tensor& param : model.second->parameters()) rest.push_back(param);
  groups.emplace_back(rest, std::make_unique<BaseOptions>(options));
  Optimizer optimizer(groups, options, Options().rho(0.2));
  optimizer.attach(model);
  optimizer.every(every);
  double norm = 0.0;
  std::vector<at::Tensor> all = model.first->parameters();
  all.insert(all.end(), rest.begin(), rest.end());
  if (how == How::LibTorchsFunctions) {
    optimizer.before_descent([&](std::vector<at::Tensor>&) {
      if (clipping.norm > 0.0) norm = torch::nn::utils::clip_grad_norm_(all, clipping.norm, clipping.norm_type);
      if (clipping.value > 0.0) torch::nn::utils::clip_grad_value_(all, clipping.value);
    });
  } else {
    if (clipping.norm > 0.0) optimizer.clip_grad_norm(clipping.norm, clipping.norm_type);
    if (clipping.value > 0.0) optimizer.clip_grad_value(clipping.value);
  }
  Trace trace;
  for (int i = 0; i < kSteps; ++i) {
    const Batch batch = Batch::draw();
    step_as(how, optimizer, [&] {
      at::Tensor loss = model.loss(batch);
      loss.backward();
      return loss;
    });
    if (how != How::LibTorchsFunctions && clipping.norm > 0.0)
      norm = optimizer.report().unclipped_norm.template item<double>();
    EXPECT_EQ(how == How::LibTorchsFunctions || clipping.norm == 0.0, !optimizer.report().unclipped_norm.defined());
    trace.add("norm", at::scalar_tensor(norm, at::TensorOptions().dtype(at::kDouble)));
    trace.add("first weight", model.first->weight);
  }
  trace.add(model);
  return trace;
}

template <class Optimizer, class BaseOptions>
void expect_same_however(const Clipping& clipping, const BaseOptions& options, int64_t every = 1) {
  const Trace expected = train<Optimizer>(How::LibTorchsFunctions, clipping, options, every);
  for (const How how : {How::Closure, How::Plain, How::TwoPhase}) {
    SCOPED_TRACE(testing::Message() << "way " << static_cast<int>(how) << ", norm " << clipping.norm << " of order "
                                    << clipping.norm_type << ", value " << clipping.value);
    expect_same(expected, train<Optimizer>(how, clipping, options, every));
  }
}

TEST(Clipping, OfTheNormIsThatOfLibTorch) {
  for (const double type : {2.0, 1.0, 3.0, kInfinity})
    for (const double limit : {1e-3, 0.3, 1e3})
      expect_same_however<SAM<SGD>>({limit, type, 0.0}, SGDOptions(0.1).momentum(0.9));
}

TEST(Clipping, OfComponentsIsThatOfLibTorch) {
  for (const double limit : {1e-3, 1e-2, 1e3})
    expect_same_however<SAM<SGD>>({0.0, 2.0, limit}, SGDOptions(0.1).momentum(0.9));
}

TEST(Clipping, OfTheNormComesBeforeThatOfComponents) {
  expect_same_however<SAM<SGD>>({0.3, 2.0, 1e-2}, SGDOptions(0.1).momentum(0.9));
}

TEST(Clipping, SeesTheFinalGradientsOfEveryMethod) {
  expect_same_however<ZSharp<AdamW>>({0.2, 2.0, 0.0}, AdamWOptions(0.01));
  expect_same_however<GCSAM<SGD>>({0.2, 2.0, 0.0}, SGDOptions(0.1).momentum(0.9));
  expect_same_however<ASAM<AdamW>>({0.2, 2.0, 1e-2}, AdamWOptions(0.01));
}

TEST(Clipping, ClipsAlsoStepsThatAScheduleLeavesOut) {
  expect_same_however<SAM<SGD>>({0.2, 2.0, 0.0}, SGDOptions(0.1).momentum(0.9), /*every=*/2);
  expect_same_however<SAM<SGD>>({0.0, 2.0, 1e-2}, SGDOptions(0.1).momentum(0.9), /*every=*/2);
}

TEST(Clipping, OfSparseGradientsIsTheSameInEveryWay) {
  const auto run = [](How how) {
    torch::manual_seed(11);
    torch::nn::Embedding embedding(torch::nn::EmbeddingOptions(20, 5).sparse(true));
    SAM<SGD> optimizer(embedding->parameters(), SGDOptions(0.3), Options().rho(0.1));
    optimizer.clip_grad_norm(0.5).clip_grad_value(0.1);
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor words = torch::randint(20, {6, 4}, at::kLong);
      step_as(how, optimizer, [&] {
        at::Tensor loss = embedding(words).pow(3).sum();
        loss.backward();
        return loss;
      });
      trace.add("norm", optimizer.report().unclipped_norm);
    }
    trace.add(*embedding);
    return trace;
  };
  const Trace expected = run(How::Closure);
  expect_same(expected, run(How::Plain));
  expect_same(expected, run(How::TwoPhase));
}

TEST(Clipping, TakesNoNormThatIsNotFinite) {
  for (const How how : {How::Closure, How::Plain, How::TwoPhase}) {
    torch::manual_seed(11);
    Net model;
    SAM<SGD> optimizer(model, SGDOptions(0.1));
    optimizer.clip_grad_norm(0.5);
    const Batch batch = Batch::draw();
    double factor = 1.0;
    const auto pass = [&] {
      at::Tensor loss = model.loss(batch) * factor;
      loss.backward();
      return loss;
    };
    step_as(how, optimizer, pass);
    EXPECT_EQ(optimizer.non_finite_clips(), 0);
    factor = kInfinity;
    step_as(how, optimizer, pass);
    EXPECT_EQ(optimizer.non_finite_clips(), 1);
    EXPECT_EQ(optimizer.non_finite_steps(), 1);
  }
}

}  // namespace
}  // namespace steppe::plain_loops
