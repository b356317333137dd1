// Losses scaled up, gradients scaled down, and steps that overflow.
// SPDX-License-Identifier: MIT
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <steppe/optimizers.hpp>
#include <steppe/training/autocast.hpp>
#include <steppe/training/grad_scaler.hpp>

#include "../errors.hpp"
#include "../step/thread_exchange.hpp"

namespace steppe::training {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

struct ScaledProblem {
  explicit ScaledProblem(bool normalized = true) {
    torch::manual_seed(5);
    model->push_back(torch::nn::Linear(6, 10));
    if (normalized) model->push_back(torch::nn::BatchNorm1d(10));
    model->push_back(torch::nn::Tanh());
    model->push_back(torch::nn::Linear(10, 3));
    x = torch::randn({16, 6});
    y = torch::randint(0, 3, {16});
  }
  at::Tensor loss() { return torch::cross_entropy_loss(model->forward(x), y); }
  std::vector<at::Tensor> everything() const {
    std::vector<at::Tensor> all;
    for (const at::Tensor& param : model->parameters()) all.push_back(param.detach().clone());
    for (const at::Tensor& buffer : model->buffers()) all.push_back(buffer.clone());
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

template <class Function>
void expect_error_with(Function&& function, const std::string& words) {
  const std::string message = message_of(function);
  EXPECT_NE(message.find(words), std::string::npos) << message;
}

enum class Way { Closure, Plain, TwoPhase };

/// Six steps; `scaler` may be null. Returns the losses of the steps.
template <class Optimizer>
std::vector<double> train(ScaledProblem& problem, Optimizer& optimizer, GradScaler* scaler, Way way) {
  std::vector<double> losses;
  if (scaler) optimizer.scaler(*scaler);
  const auto backward = [&] {
    const at::Tensor loss = problem.loss();
    (scaler ? scaler->scale(loss) : loss).backward();
    return loss;
  };
  for (int k = 0; k < 6; ++k) {
    at::Tensor loss;
    if (way == Way::Closure) {
      loss = optimizer.step(backward);
    } else {
      optimizer.zero_grad();
      loss = backward();
      if (way == Way::Plain) {
        loss = scaler ? scaler->step(optimizer) : optimizer.step();
      } else {
        optimizer.descend(optimizer.ascend(loss) ? backward() : at::Tensor());
      }
    }
    losses.push_back(loss.template item<double>());
    if (scaler) scaler->update();
  }
  return losses;
}

template <class Optimizer>
auto options_of() {
  if constexpr (std::is_base_of_v<SGD, Optimizer>) {
    return SGDOptions(0.1).momentum(0.9);
  } else {
    return torch::optim::AdamOptions(0.01);
  }
}

template <class Optimizer>
struct Scaled : testing::Test {};
using Methods = testing::Types<SAM<SGD>, ASAM<SGD>, ZSharp<SGD>, GCSAM<SGD>, FriendlySAM<SGD>, WSAM<SGD>, LookSAM<SGD>,
                               SAM<torch::optim::Adam>>;
TYPED_TEST_SUITE(Scaled, Methods);

TYPED_TEST(Scaled, StepsAreTheUnscaledOnesBitForBit) {
  for (const Way way : {Way::Closure, Way::Plain, Way::TwoPhase}) {
    ScaledProblem plain, scaled;
    const auto options = options_of<TypeParam>();
    TypeParam a(*plain.model, options), b(*scaled.model, options);
    a.clip_grad_norm(0.5);
    b.clip_grad_norm(0.5);
    GradScaler scaler;
    const auto plain_losses = train(plain, a, nullptr, way), losses = train(scaled, b, &scaler, way);
    EXPECT_TRUE(same(plain.everything(), scaled.everything())) << static_cast<int>(way);
    EXPECT_EQ(plain_losses, losses);
    EXPECT_EQ(b.skipped_steps(), 0);
    EXPECT_EQ(scaler.factor(), 65536.0);
    EXPECT_EQ(a.report().gradient_norm.defined(), b.report().gradient_norm.defined());
    if (a.report().gradient_norm.defined()) {
      EXPECT_EQ(a.report().gradient_norm.template item<double>(), b.report().gradient_norm.template item<double>());
      EXPECT_TRUE(torch::equal(a.report().layer_gradient_norm, b.report().layer_gradient_norm));
      EXPECT_EQ(a.report().sharpness.template item<double>(), b.report().sharpness.template item<double>());
    }
    EXPECT_EQ(a.report().unclipped_norm.template item<double>(), b.report().unclipped_norm.template item<double>());
  }
}

TEST(ScaledSteps, HaveTheRadiusOfTheUnscaledOnes) {
  for (const bool inverse : {false, true}) {
    ScaledProblem plain, scaled;
    SAM<SGD> a(*plain.model, SGDOptions(0.1)), b(*scaled.model, SGDOptions(0.1));
    for (SAM<SGD>* sam : {&a, &b})
      sam->options().radius(inverse ? schedule::inverse_norm(schedule::constant(0.02)) : schedule::unified(0.3));
    GradScaler scaler;
    train(plain, a, nullptr, Way::Closure);
    train(scaled, b, &scaler, Way::Closure);
    EXPECT_TRUE(same(plain.everything(), scaled.everything()));
  }
}

TEST(ScaledSteps, ThatAreCancelledLeaveTheGradientsOfPassOne) {
  ScaledProblem problem;
  SAM<SGD> sam(*problem.model, SGDOptions(0.1));
  GradScaler scaler;
  sam.scaler(scaler);
  sam.after_pass_one([](std::vector<at::Tensor>&) {});
  scaler.scale(problem.loss()).backward();
  const at::Tensor before = problem.model->parameters()[0].grad().clone();
  sam.ascend();
  sam.cancel();
  EXPECT_TRUE(torch::equal(before, problem.model->parameters()[0].grad()));
}

TEST(ScaledSteps, ShowHooksTrueGradients) {
  ScaledProblem problem;
  SAM<SGD> sam(*problem.model, SGDOptions(0.1));
  GradScaler scaler;
  sam.scaler(scaler);
  std::vector<double> norms;
  const auto note = [&](std::vector<at::Tensor>& gradients) { norms.push_back(gradients[0].norm().item<double>()); };
  sam.after_pass_one(note);
  sam.before_descent(note);
  problem.loss().backward();
  const double norm = problem.model->parameters()[0].grad().norm().item<double>();
  sam.step([&] {
    const at::Tensor loss = problem.loss();
    scaler.scale(loss).backward();
    return loss;
  });
  EXPECT_DOUBLE_EQ(norms[0], norm);
  EXPECT_LT(norms[1], 100 * norm);
}

/// In the given pass of the second step the loss is infinite.
void overflow_in(int pass, Way way) {
  ScaledProblem problem;
  SAM<SGD> sam(*problem.model, SGDOptions(0.1).momentum(0.9));
  GradScaler scaler;
  sam.scaler(scaler);
  int calls = 0, bad = -1;
  const auto backward = [&] {
    const at::Tensor loss = problem.loss();
    at::Tensor scaled = scaler.scale(loss);
    if (calls++ == bad) scaled = scaled * std::numeric_limits<float>::infinity();
    scaled.backward();
    return loss;
  };
  const auto step = [&] {
    if (way == Way::Closure) {
      sam.step(backward);
    } else {
      sam.zero_grad();
      backward();
      if (sam.ascend()) backward();
      sam.descend();
    }
  };
  step();
  scaler.update();
  const auto before = problem.everything();
  std::ostringstream state_before, state_after;
  torch::save(sam, state_before);
  bad = calls + pass;
  step();
  EXPECT_EQ(sam.skipped_steps(), 1);
  EXPECT_EQ(sam.steps(), 1);
  EXPECT_EQ(sam.non_finite_steps(), 0);
  if (way == Way::Closure) {
    EXPECT_TRUE(same(before, problem.everything()));
  } else {  // pass 1 was the program's own, with its statistics
    const auto after = problem.everything();
    EXPECT_TRUE(same({before.begin(), before.begin() + 6}, {after.begin(), after.begin() + 6}));
  }
  scaler.update();
  EXPECT_EQ(scaler.factor(), 32768.0);
  step();
  scaler.update();
  EXPECT_EQ(sam.steps(), 2);
  for (const at::Tensor& tensor : problem.everything()) EXPECT_TRUE(tensor.isfinite().all().item<bool>());
}

TEST(AnOverflow, OfEitherPassSkipsTheStep) {
  for (const Way way : {Way::Closure, Way::TwoPhase})
    for (const int pass : {0, 1}) overflow_in(pass, way);
}

TEST(AnOverflow, InALoopWithoutAClosureSkipsTheStep) {
  ScaledProblem problem;
  SAM<SGD> sam(*problem.model, SGDOptions(0.1).momentum(0.9));
  GradScaler scaler(1e38);  // every gradient overflows at first
  for (int k = 0; k < 200 && sam.steps() < 3; ++k) {
    sam.zero_grad();
    scaler.scale(problem.loss() * 1e4).backward();
    scaler.step(sam);
    scaler.update();
  }
  EXPECT_EQ(sam.steps(), 3);
  EXPECT_GT(sam.skipped_steps(), 0);
  EXPECT_LT(scaler.factor(), 1e38);
}

TEST(AnOverflow, OfOneProcessSkipsTheStepOfAll) {
  for (const Perturb perturb : {Perturb::Each, Perturb::Together}) {
    std::vector<std::unique_ptr<ScaledProblem>> problems;
    for (int r = 0; r < 2; ++r) problems.push_back(std::make_unique<ScaledProblem>());
    const auto before = problems[0]->everything();
    std::vector<int64_t> skipped(2);
    const auto errors = run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
      ScaledProblem& problem = *problems[static_cast<size_t>(r)];
      SAM<SGD> sam(*problem.model, SGDOptions(0.1).momentum(0.9));
      GradScaler scaler;
      sam.scaler(scaler).exchange(exchange, perturb);
      int calls = 0;
      sam.step([&] {
        const at::Tensor loss = problem.loss();
        // Of pass 1 of one process alone.
        (scaler.scale(loss) * (calls++ == 0 && r == 1 ? std::numeric_limits<float>::infinity() : 1.0F)).backward();
        return loss;
      });
      scaler.update();
      EXPECT_EQ(scaler.factor(), 32768.0);
      skipped[static_cast<size_t>(r)] = sam.skipped_steps();
    });
    EXPECT_EQ(errors[0] + errors[1], "");
    EXPECT_EQ(skipped, (std::vector<int64_t>{1, 1}));
    for (const auto& problem : problems) EXPECT_TRUE(same(before, problem->everything()));
  }
}

TEST(AGradScaler, GrowsAndBacksOffAsPythons) {
  at::Tensor weight = torch::ones({1}, at::TensorOptions().requires_grad(true));
  SGD sgd({weight}, SGDOptions(0.0));
  GradScaler scaler(8.0);
  scaler.growth_interval(2).growth_factor(4.0).backoff_factor(0.25);
  std::vector<double> factors;
  for (const double slope : {1.0, 1.0, 1.0, std::numeric_limits<double>::quiet_NaN(), 1.0, 1.0, 1.0}) {
    sgd.zero_grad();
    scaler.scale((weight * slope).sum()).backward();
    scaler.step(sgd);
    scaler.update();
    factors.push_back(scaler.factor());
  }
  EXPECT_EQ(factors, (std::vector<double>{8, 32, 32, 8, 8, 32, 32}));
  EXPECT_EQ(scaler.growth_tracker(), 1);
}

TEST(AGradScaler, ServesOptimizersOfLibTorch) {
  ScaledProblem plain, scaled;
  SGD a(plain.model->parameters(), SGDOptions(0.1).momentum(0.9)),
      b(scaled.model->parameters(), SGDOptions(0.1).momentum(0.9));
  GradScaler scaler;
  for (int k = 0; k < 3; ++k) {
    a.zero_grad();
    plain.loss().backward();
    a.step();
    b.zero_grad();
    scaler.scale(scaled.loss()).backward();
    if (k == 1) scaler.unscale(b);  // to read the gradients
    scaler.step(b);
    scaler.update();
  }
  EXPECT_TRUE(same(plain.everything(), scaled.everything()));
}

TEST(AGradScaler, ServesSeveralOptimizersEachOfWhichSkipsItsOwn) {
  ScaledProblem a, b;
  SAM<SGD> first(*a.model, SGDOptions(0.1));
  SGD second(b.model->parameters(), SGDOptions(0.1));
  GradScaler scaler;
  const auto before = b.everything();
  first.zero_grad();
  scaler.scale(a.loss()).backward();
  scaler.step(first);
  second.zero_grad();
  scaler.scale(b.loss() * std::numeric_limits<float>::infinity()).backward();
  EXPECT_FALSE(scaler.step(second).defined());
  scaler.update();
  EXPECT_EQ(first.steps(), 1);
  EXPECT_EQ(scaler.factor(), 32768.0);
  EXPECT_TRUE(same({before.begin(), before.begin() + 6}, [&] {
    const auto now = b.everything();
    return std::vector<at::Tensor>(now.begin(), now.begin() + 6);
  }()));
}

TEST(AGradScaler, ThatWasAskedToUnscaleCountsThoughNoStepFollows) {
  ScaledProblem problem;
  SGD sgd(problem.model->parameters(), SGDOptions(0.1));
  GradScaler scaler;
  for (int k = 0; k < 2; ++k) {
    sgd.zero_grad();
    scaler.scale(problem.loss()).backward();
    scaler.unscale(sgd);
    scaler.update();  // the program has skipped the step
  }
  const at::Tensor before = problem.model->parameters()[0].detach().clone();
  sgd.zero_grad();
  scaler.scale(problem.loss()).backward();
  scaler.step(sgd);
  EXPECT_LT((before - problem.model->parameters()[0]).abs().max().item<double>(), 1.0);  // along true gradients
}

TEST(AGradScaler, GoesOnFromACheckpoint) {
  GradScaler scaler(1024.0);
  scaler.growth_interval(7).growth_factor(3.0).backoff_factor(0.125);
  at::Tensor weight = torch::ones({1}, at::TensorOptions().requires_grad(true));
  SGD sgd({weight}, SGDOptions(0.0));
  for (int k = 0; k < 3; ++k) {
    sgd.zero_grad();
    scaler.scale(weight.sum()).backward();
    scaler.step(sgd);
    scaler.update();
  }
  std::stringstream stream;
  torch::save(scaler, stream);
  GradScaler loaded;
  torch::load(loaded, stream);
  EXPECT_EQ(loaded.factor(), 1024.0);
  EXPECT_EQ(loaded.growth_tracker(), 3);
  EXPECT_EQ(loaded.growth_interval(), 7);
  EXPECT_EQ(loaded.growth_factor(), 3.0);
  EXPECT_EQ(loaded.backoff_factor(), 0.125);
  std::stringstream other;
  torch::save(weight, other);
  expect_error_with([&] { torch::load(loaded, other); }, "grad_scaler_format");
  EXPECT_EQ(loaded.factor(), 1024.0);
}

TEST(AGradScaler, ThatIsOffChangesNothing) {
  ScaledProblem plain, off;
  SAM<SGD> a(*plain.model, SGDOptions(0.1)), b(*off.model, SGDOptions(0.1));
  GradScaler scaler;
  scaler.enabled(false);
  train(plain, a, nullptr, Way::Closure);
  train(off, b, &scaler, Way::Closure);
  EXPECT_TRUE(same(plain.everything(), off.everything()));
  EXPECT_EQ(scaler.factor(), 1.0);
}

TEST(AGradScaler, CallsThatAreMissingAreErrorsBeforeAnythingHasChanged) {
  ScaledProblem problem;
  SAM<SGD> sam(*problem.model, SGDOptions(0.1));
  GradScaler scaler;
  sam.scaler(scaler);
  expect_error_with([&] { scaler.update(); }, "no step was made");
  const auto before = problem.everything();
  const auto unscaled = [&] {
    const at::Tensor loss = problem.loss();
    loss.backward();
    return loss;
  };
  expect_error_with([&] { sam.step(unscaled); }, "scaler.scale(loss).backward()");
  EXPECT_TRUE(same(before, problem.everything()));
  const auto scaled = [&] {
    const at::Tensor loss = problem.loss();
    scaler.scale(loss).backward();
    return loss;
  };
  sam.step(scaled);
  expect_error_with([&] { sam.step(scaled); }, "scaler.update()");
  EXPECT_EQ(sam.steps(), 1);
  expect_error_with([&] { scaler.unscale(sam); }, "clip_grad_norm()");
  SAM<torch::optim::LBFGS> lbfgs(*problem.model, torch::optim::LBFGSOptions(0.1));
  expect_error_with([&] { lbfgs.scaler(scaler); }, "without a scaler");
  expect_error_with([&] { GradScaler(0.0); }, "over 0, got 0");
  expect_error_with([&] { scaler.backoff_factor(1.0); }, "between 0 and 1");
  expect_error_with([&] { scaler.growth_factor(1.0); }, "over 1");
  expect_error_with([&] { scaler.growth_interval(0); }, "at least 1");
}

TEST(AGradScaler, ScalesALossOfSixteenBitsInFloat) {
  GradScaler scaler;
  const at::Tensor loss = torch::full({}, 2.0, at::kHalf);
  EXPECT_EQ(scaler.scale(loss).item<double>(), 131072.0);  // which float16 does not hold
}

/// Steps of bfloat16 passes against those of float32: each activation and weight is rounded to 8 bits, 2^-9 of its
/// value, through three layers and two passes; the gradients' cosine and the loss stay that near.
TEST(AnAutocastRegion, TrainsNearFloat32) {
  std::vector<at::ScalarType> types = {at::kBFloat16};
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
  types.push_back(at::kHalf);
#endif
  for (const at::ScalarType type : types) {
    ScaledProblem full, reduced;
    SAM<SGD> a(*full.model, SGDOptions(0.1).momentum(0.9)), b(*reduced.model, SGDOptions(0.1).momentum(0.9));
    GradScaler scaler;
    scaler.enabled(type == at::kHalf);
    b.scaler(scaler);
    const double unit = type == at::kHalf ? std::ldexp(1.0, -11) : std::ldexp(1.0, -8);
    for (int k = 0; k < 10; ++k) {
      const at::Tensor expected = a.step([&] {
        const at::Tensor loss = full.loss();
        loss.backward();
        return loss;
      });
      at::ScalarType computed = at::kFloat;
      const at::Tensor loss = b.step([&] {
        at::Tensor value;
        {
          const Autocast region(at::kCPU, type);
          const at::Tensor logits = reduced.model->forward(reduced.x);
          computed = logits.scalar_type();
          value = torch::cross_entropy_loss(logits.to(at::kFloat), reduced.y);
        }
        scaler.scale(value).backward();
        return value;
      });
      scaler.update();
      EXPECT_EQ(computed, type);
      // Six roundings a pass, and the error of the weights grows by as much a step.
      EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 6 * (k + 1) * unit * expected.item<double>());
    }
    EXPECT_NE(a.report().gradient_norm.item<double>(), b.report().gradient_norm.item<double>());
  }
}

TEST(AnAutocastRegion, GivesTheCallersStateBack) {
  const auto before = step::AutocastState::now();
  {
    const Autocast outer(at::kCPU);
    const auto inside = step::AutocastState::now();
    EXPECT_TRUE(inside.enabled());
    {
      const Autocast inner(at::kCPU, at::kBFloat16, false);
      EXPECT_FALSE(step::AutocastState::now().enabled());
      const at::Tensor a = torch::randn({2, 2});
      EXPECT_EQ(torch::mm(a, a).scalar_type(), at::kFloat);
    }
    EXPECT_TRUE(step::AutocastState::now() == inside);
    const at::Tensor a = torch::randn({2, 2});
    EXPECT_EQ(torch::mm(a, a).scalar_type(), at::kBFloat16);
  }
  EXPECT_TRUE(step::AutocastState::now() == before);
  expect_error_with([] { Autocast(at::kCPU, at::kFloat); }, "got Float");
  expect_error_with([] { static_cast<void>(Autocast(at::DeviceType::HIP)); }, "at::kCUDA, got ");
}

}  // namespace
}  // namespace steppe::training
