// What must hold for every method over every base in every dtype, whatever it computes.
// SPDX-License-Identifier: MIT
#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <torch/serialize.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../errors.hpp"
#include "methods.hpp"
#include "net.hpp"

namespace contract {
namespace {

struct Case {
  BaseUnderTest base;
  Method method;
  at::ScalarType dtype = at::kFloat;

  std::string name() const { return base.name + "_" + method.name + "_" + c10::toString(dtype); }
};

void PrintTo(const Case& value, std::ostream* out) { *out << value.name(); }

/// Those of methods whose only pass is made at w + e, or of all others.
std::vector<Case> all_cases(bool ahead) {
  std::vector<Case> cases;
  for (const BaseUnderTest& base : all_bases())
    for (const Method& method : base.methods)
      for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
        const bool reduced = dtype == at::kHalf || dtype == at::kBFloat16;
        if (method.is_ahead == ahead && (!reduced || base.reduced_dtypes)) cases.push_back({base, method, dtype});
      }
  return cases;
}

/// The suite runs on the fused kernels; with CONTRACT_PATH set to reference, buffer or in_place on another way to w + e.
void take_the_wanted_path(steppe::Options& options) {
  const char* set = std::getenv("CONTRACT_PATH");
  const std::string path = set == nullptr ? "fused" : set;
  if (path == "reference") options.fused(false);
  if (path == "buffer") options.placement(steppe::Placement::Buffer);
  if (path == "in_place") options.placement(steppe::Placement::InPlace);
}

/// A model with its optimizer.
struct Training {
  explicit Training(const Case& test, double rho = -1.0, double dropout = 0.5)
      : Training(test, std::make_shared<Net>(test.dtype, dropout), one_group, rho) {}

  Training(const Case& test, std::shared_ptr<Net> model, Groups (*groups)(const Net&), double rho = -1.0)
      : net(std::move(model)), optimizer(test.method.make(groups(*net))) {
    optimizer->attach(*net);
    for (size_t i = 0; i < optimizer->base().param_groups().size(); ++i) take_the_wanted_path(optimizer->options(i));
    if (rho >= 0.0) optimizer->options(0).rho(rho);
    torch::manual_seed(11);
  }

  static Groups one_group(const Net& net) { return {torch::optim::OptimizerParamGroup(net.parameters())}; }
  static Groups pairs(const Net& net) {
    const auto params = net.parameters();
    Groups groups;
    for (auto pair = params.begin(); pair != params.end(); pair += 2)
      groups.emplace_back(std::vector<at::Tensor>(pair, pair + 2));
    return groups;
  }

  void steps(int count) {
    for (int i = 0; i < count; ++i) optimizer->step(net->closure());
  }

  /// As loops without a closure are written. Some of them call the optimizer through its base class.
  at::Tensor plain_step() {
    optimizer->steps() % 2 == 0 ? optimizer->zero_grad() : optimizer->base().zero_grad();
    net->closure()();
    return optimizer->step();
  }
  void plain_steps(int count) {
    for (int i = 0; i < count; ++i) plain_step();
  }

  std::shared_ptr<Net> net;
  std::unique_ptr<AnyOptimizer> optimizer;
};

/// The same model trained by the base optimizer alone.
struct PlainTraining {
  explicit PlainTraining(const Case& test)
      : net(std::make_shared<Net>(test.dtype)), optimizer(test.base.make(Training::one_group(*net))) {
    torch::manual_seed(11);
  }

  void steps(int count) {
    for (int i = 0; i < count; ++i)
      optimizer->step([&] {
        optimizer->zero_grad();
        at::Tensor loss = net->loss();
        loss.backward();
        return loss;
      });
  }

  std::shared_ptr<Net> net;
  std::unique_ptr<torch::optim::Optimizer> optimizer;
};

/// Everything that a step leaves behind, by name.
using Traces = std::vector<std::pair<std::string, at::Tensor>>;

Traces traces_of(const Training& training, const at::Tensor& loss) {
  const steppe::Report& report = training.optimizer->report();
  Traces traces = {{"the loss", loss},
                   {"report().perturbed", torch::tensor(report.perturbed)},
                   {"report().loss", report.loss},
                   {"report().sharpness", report.sharpness},
                   {"report().gradient_norm", report.gradient_norm},
                   {"report().perturbation_norm", report.perturbation_norm},
                   {"report().unclipped_norm", report.unclipped_norm},
                   {"report().kept_share", report.kept_share},
                   {"report().layers", torch::tensor(static_cast<int64_t>(report.layers.size()))},
                   {"report().layer_gradient_norm", report.layer_gradient_norm},
                   {"report().layer_perturbation_norm", report.layer_perturbation_norm},
                   {"report().layer_kept_share", report.layer_kept_share}};
  for (const auto& param : training.net->named_parameters()) {
    traces.emplace_back(param.key(), param.value().detach());
    traces.emplace_back("the gradient of " + param.key(), param.value().grad());
  }
  for (const auto& buffer : training.net->named_buffers()) traces.emplace_back(buffer.key(), buffer.value());
  for (auto& trace : traces)
    if (trace.second.defined()) trace.second = trace.second.detach().clone();
  return traces;
}

void expect_same(const Traces& expected, const Traces& found) {
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const at::Tensor &a = expected[i].second, &b = found[i].second;
    EXPECT_TRUE(a.defined() == b.defined() && (!a.defined() || same_bits(a, b)))
        << expected[i].first << ": " << a << " and " << b;
  }
}

at::Tensor next_random_numbers() { return torch::rand({4}, device()); }

class Contract : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (device().is_cpu()) return;
    if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
    // Runs are compared bit for bit.
    at::globalContext().setDeterministicCuDNN(true);
    at::globalContext().setBenchmarkCuDNN(false);
  }
  const Case& test() const { return GetParam(); }
  bool evaluates_once() const { return !test().base.needs_closure; }
};

TEST_P(Contract, RhoZeroEqualsTheBaseBitForBit) {
  if (test().method.changes_descent) return;  // its final gradient differs by definition
  Training ours(test(), 0.0);
  ours.steps(4);
  const at::Tensor ours_next = next_random_numbers();
  PlainTraining plain(test());
  plain.steps(4);
  EXPECT_TRUE(same_bits(ours.net->values(), plain.net->values()));
  EXPECT_TRUE(same_bits(ours.net->buffer_values(), plain.net->buffer_values()));
  EXPECT_TRUE(same_bits(ours_next, next_random_numbers()));
  if (!evaluates_once()) return;
  Training without_closure(test(), 0.0);
  without_closure.plain_steps(4);
  EXPECT_TRUE(same_bits(without_closure.net->values(), plain.net->values()));
  EXPECT_TRUE(same_bits(without_closure.net->buffer_values(), plain.net->buffer_values()));
  EXPECT_TRUE(same_bits(ours_next, next_random_numbers()));
}

// Both passes are made here, so dropout masks and buffers must be handled for the numbers to agree.
TEST_P(Contract, AVanishingRadiusEqualsTheBaseBitForBit) {
  if (test().method.changes_descent) return;
  Training ours(test(), 1e-300);
  ours.steps(4);
  const at::Tensor ours_next = next_random_numbers();
  PlainTraining plain(test());
  plain.steps(4);
  EXPECT_TRUE(ours.optimizer->report().perturbed);
  EXPECT_EQ(ours.optimizer->report().sharpness.item<double>(), 0.0);
  EXPECT_TRUE(same_bits(ours.net->values(), plain.net->values()));
  EXPECT_TRUE(same_bits(ours.net->buffer_values(), plain.net->buffer_values()));
  EXPECT_TRUE(same_bits(ours_next, next_random_numbers()));
}

TEST_P(Contract, WeightsMoveInPassTwoAndComeBackBitForBit) {
  Training training(test());
  std::vector<void*> addresses;
  for (const at::Tensor& param : training.net->parameters()) addresses.push_back(param.data_ptr());
  std::vector<at::Tensor> in_pass_one, in_pass_two;
  int passes = 0;
  training.optimizer->before_descent([&](std::vector<at::Tensor>&) {
    EXPECT_TRUE(same_bits(training.net->values(), in_pass_one));
    EXPECT_FALSE(same_bits(in_pass_one, in_pass_two));
  });
  for (int step = 0; step < 3; ++step)
    training.optimizer->step([&] {
      (++passes % 2 == 1 ? in_pass_one : in_pass_two) = training.net->values();
      return training.net->closure()();
    });
  EXPECT_GE(passes, 6);
  for (size_t i = 0; i < addresses.size(); ++i) EXPECT_EQ(training.net->parameters()[i].data_ptr(), addresses[i]);
}

TEST_P(Contract, TheReturnedLossIsTheCleanOne) {
  Training training(test());
  Training twin(test());
  torch::manual_seed(3);
  const at::Tensor clean = twin.net->loss();
  torch::manual_seed(3);
  const at::Tensor loss = training.optimizer->step(training.net->closure());
  EXPECT_TRUE(same_bits(loss, clean));
}

TEST_P(Contract, ZeroGradInTheClosureMakesNoDifference) {
  Training without(test()), with(test());
  without.steps(3);
  torch::manual_seed(11);
  for (int i = 0; i < 3; ++i)
    with.optimizer->step([&] {
      with.optimizer->base().zero_grad();
      return with.net->closure()();
    });
  EXPECT_TRUE(same_bits(without.net->values(), with.net->values()));
}

struct ThrownOnPurpose : std::runtime_error {
  ThrownOnPurpose() : std::runtime_error("on purpose") {}
};

TEST_P(Contract, AnExceptionInEitherPassPutsEverythingBack) {
  for (const int failing_pass : {1, 2}) {
    Training training(test()), twin(test());
    training.steps(1);
    torch::manual_seed(11);
    twin.steps(1);
    const auto weights = training.net->values();
    const auto buffers = training.net->buffer_values();
    int pass = 0;
    const auto failing = [&] {
      const at::Tensor loss = training.net->closure()();
      if (++pass == failing_pass) throw ThrownOnPurpose();
      return loss;
    };
    EXPECT_THROW(training.optimizer->step(failing), ThrownOnPurpose);
    EXPECT_EQ(pass, failing_pass);
    EXPECT_TRUE(same_bits(training.net->values(), weights));
    EXPECT_TRUE(same_bits(training.net->buffer_values(), buffers));
    EXPECT_TRUE(c10::GradMode::is_enabled());
    EXPECT_EQ(training.optimizer->steps(), 1);
    if (!evaluates_once()) continue;  // LBFGS itself has counted the step by now
    torch::manual_seed(5);
    training.steps(1);
    torch::manual_seed(5);
    twin.steps(1);
    EXPECT_TRUE(same_bits(training.net->values(), twin.net->values()));
  }
}

TEST_P(Contract, AnExceptionInAHookPutsEverythingBack) {
  for (const bool late : {false, true}) {
    Training training(test());
    const auto weights = training.net->values();
    const auto buffers = training.net->buffer_values();
    const auto failing = [](std::vector<at::Tensor>&) { throw ThrownOnPurpose(); };
    late ? training.optimizer->before_descent(failing) : training.optimizer->after_pass_one(failing);
    EXPECT_THROW(training.steps(1), ThrownOnPurpose);
    EXPECT_TRUE(same_bits(training.net->values(), weights));
    EXPECT_TRUE(same_bits(training.net->buffer_values(), buffers));
  }
}

// The first pass is the program's own there: its effects on buffers and generators stay.
TEST_P(Contract, AnExceptionWithoutAClosurePutsBackWhatStepHasChanged) {
  if (!evaluates_once()) return;
  enum class Place { Nowhere, Forward, AfterPassOne, PassTwo, BeforeDescent };
  Place place = Place::Nowhere;
  const auto fail_at = [&place](Place here) {
    if (std::exchange(place, place == here ? Place::Nowhere : place) == here) throw ThrownOnPurpose();
  };
  Training training(test());
  int passes = 0;
  training.net->kernel.register_hook([&](at::Tensor) {
    if (++passes == 2) fail_at(Place::PassTwo);
  });
  training.optimizer->after_pass_one([&](std::vector<at::Tensor>&) { fail_at(Place::AfterPassOne); });
  training.optimizer->before_descent([&](std::vector<at::Tensor>&) { fail_at(Place::BeforeDescent); });
  training.plain_steps(1);
  Training twin(test());
  twin.steps(1);
  for (const Place here : {Place::Forward, Place::AfterPassOne, Place::PassTwo, Place::BeforeDescent}) {
    SCOPED_TRACE(static_cast<int>(here));
    const int64_t steps = training.optimizer->steps();
    const auto weights = training.net->values();
    training.optimizer->zero_grad();
    passes = 0;
    const at::Tensor loss = training.net->loss();
    if (here != Place::Forward) {  // where the loop continues with the next batch
      loss.backward();
      const auto buffers = training.net->buffer_values();
      place = here;
      EXPECT_THROW(training.optimizer->step(), ThrownOnPurpose);
      EXPECT_TRUE(same_bits(training.net->buffer_values(), buffers));
    }
    EXPECT_TRUE(same_bits(training.net->values(), weights));
    EXPECT_TRUE(c10::GradMode::is_enabled());
    EXPECT_EQ(training.optimizer->steps(), steps);

    for (size_t i = 0; i < twin.net->buffers().size(); ++i) twin.net->buffers()[i].copy_(training.net->buffers()[i]);
    torch::manual_seed(5);
    training.plain_steps(1);
    torch::manual_seed(5);
    twin.steps(1);
    EXPECT_TRUE(same_bits(training.net->values(), twin.net->values()));
  }
}

TEST_P(Contract, HooksSeeEveryGradientAndMayReplaceIt) {
  Training training(test());
  size_t after_one = 0, before_two = 0;
  training.optimizer->after_pass_one([&](std::vector<at::Tensor>& gradients) { after_one = gradients.size(); });
  training.optimizer->before_descent([&](std::vector<at::Tensor>& gradients) {
    before_two = gradients.size();
    for (at::Tensor& gradient : gradients) gradient = at::ones_like(gradient);
  });
  training.steps(1);
  EXPECT_EQ(after_one, training.net->parameters().size());
  EXPECT_EQ(before_two, training.net->parameters().size());
  for (const at::Tensor& param : training.net->parameters()) EXPECT_TRUE(param.grad().eq(1).all().item<bool>());
}

// In the middle of an interval, too: what the plain steps reuse is in the file.
TEST_P(Contract, ACheckpointResumesBitIdentically) {
  Training first(test());
  first.optimizer->rho_schedule(steppe::schedule::linear(0.01, 0.1, 8));
  first.optimizer->every(2);
  first.steps(3);
  first.optimizer->base().param_groups()[0].options().set_lr(0.004);
  std::stringstream file;
  torch::save(first.optimizer->base(), file);

  Training second(test());
  for (size_t i = 0; i < first.net->parameters().size(); ++i) {
    const torch::NoGradGuard no_grad;
    second.net->parameters()[i].copy_(first.net->parameters()[i]);
  }
  for (size_t i = 0; i < first.net->buffers().size(); ++i) second.net->buffers()[i].copy_(first.net->buffers()[i]);
  torch::load(second.optimizer->base(), file);
  EXPECT_EQ(second.optimizer->base().param_groups()[0].options().get_lr(), 0.004);
  EXPECT_EQ(second.optimizer->steps(), 3);

  torch::manual_seed(21);
  first.steps(3);
  torch::manual_seed(21);
  second.steps(3);
  EXPECT_TRUE(same_bits(first.net->values(), second.net->values()));
}

TEST_P(Contract, CheckpointsGoFromAndToThePlainBase) {
  Training ours(test());
  PlainTraining plain(test());
  ours.steps(2);
  plain.steps(2);
  std::stringstream from_ours, from_plain;
  torch::save(ours.optimizer->base(), from_ours);
  torch::save(*plain.optimizer, from_plain);
  EXPECT_NO_THROW(torch::load(*PlainTraining(test()).optimizer, from_ours));

  Training target(test(), 0.0);
  for (size_t i = 0; i < plain.net->parameters().size(); ++i) {
    const torch::NoGradGuard no_grad;
    target.net->parameters()[i].copy_(plain.net->parameters()[i]);
  }
  torch::load(target.optimizer->base(), from_plain);
  if (test().method.changes_descent) return;
  torch::manual_seed(2);
  target.steps(2);
  torch::manual_seed(2);
  plain.steps(2);
  EXPECT_TRUE(same_bits(target.net->values(), plain.net->values()));
}

TEST_P(Contract, ADamagedCheckpointChangesNothing) {
  Training source(test());
  source.steps(2);
  std::stringstream whole;
  torch::save(source.optimizer->base(), whole);
  Training target(test()), twin(test());
  for (Training* training : {&target, &twin}) {
    torch::manual_seed(1);
    training->steps(2);
  }
  std::stringstream cut(whole.str().substr(0, whole.str().size() / 2));
  EXPECT_ANY_THROW(torch::load(target.optimizer->base(), cut));
  for (Training* training : {&target, &twin}) {
    torch::manual_seed(1);
    training->steps(2);
  }
  EXPECT_EQ(target.optimizer->steps(), 4);
  EXPECT_TRUE(same_bits(target.net->values(), twin.net->values()));
}

TEST_P(Contract, NoGradientsAtAllIsTheBasesBusiness) {
  if (!evaluates_once()) return;  // LibTorch's LBFGS needs gradients
  Training training(test());
  const auto weights = training.net->values();
  int passes = 0;
  const at::Tensor loss = training.optimizer->step([&] {
    ++passes;
    return training.net->loss().detach();
  });
  EXPECT_TRUE(loss.defined());
  EXPECT_EQ(passes, 1);
  EXPECT_TRUE(same_bits(training.net->values(), weights));
}

TEST_P(Contract, WithoutAClosureAndABackwardPassIsAnError) {
  if (!evaluates_once()) return;
  Training training(test());
  const auto weights = training.net->values();
  EXPECT_NE(message_of([&] { training.optimizer->step(); }).find("call backward() before it"), std::string::npos);
  training.net->loss();
  EXPECT_NE(message_of([&] { training.optimizer->step(); }).find("call backward() before it"), std::string::npos);
  EXPECT_TRUE(same_bits(training.net->values(), weights));
  EXPECT_EQ(training.optimizer->steps(), 0);
}

TEST_P(Contract, AZeroGradientPerturbsNothing) {
  for (const bool plain : {false, true}) {
    if (plain && !evaluates_once()) continue;
    Training training(test());
    const auto pass = [&] {
      at::Tensor loss = training.net->loss() * 0;
      loss.backward();
      return loss;
    };
    if (plain) pass();
    plain ? training.optimizer->step() : training.optimizer->step(pass);
    for (const at::Tensor& value : training.net->values()) EXPECT_TRUE(value.isfinite().all().item<bool>());
    if (test().method.name.rfind("CustomLink", 0) == 0) continue;  // that one ascends along the weights too
    ASSERT_TRUE(training.optimizer->report().perturbed);
    EXPECT_EQ(training.optimizer->report().perturbation_norm.item<double>(), 0.0);
  }
}

TEST_P(Contract, ANonFiniteGradientPerturbsNothingAndIsCounted) {
  for (const double factor : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    Training ours(test());
    PlainTraining plain(test());
    const auto poison = [factor](Net& net) {
      at::Tensor loss = net.loss() * factor;
      loss.backward();
      return loss;
    };
    const auto weights = ours.net->values();
    int pass = 0;
    ours.optimizer->step([&] {
      if (++pass <= 2) {
        EXPECT_TRUE(same_bits(ours.net->values(), weights));
      }
      return poison(*ours.net);
    });
    EXPECT_GE(ours.optimizer->non_finite_steps(), 1);
    torch::manual_seed(11);
    plain.optimizer->step([&] {
      plain.optimizer->zero_grad();
      return poison(*plain.net);
    });
    if (!evaluates_once()) continue;
    Training without_closure(test());
    poison(*without_closure.net);
    without_closure.optimizer->step();
    EXPECT_EQ(without_closure.optimizer->non_finite_steps(), 1);
    for (size_t i = 0; i < weights.size(); ++i)
      EXPECT_TRUE(at::allclose(without_closure.net->values()[i], ours.net->values()[i], 0, 0, /*equal_nan=*/true));
    if (test().method.changes_descent) continue;
    for (size_t i = 0; i < weights.size(); ++i)
      EXPECT_TRUE(at::allclose(ours.net->values()[i], plain.net->values()[i], 0, 0, /*equal_nan=*/true));
  }
}

TEST_P(Contract, AGradientInOnePassOnlyIsRestoredToo) {
  if (!evaluates_once()) return;
  Training training(test());
  const auto weights = training.net->values();
  int pass = 0;
  training.optimizer->before_descent([&](std::vector<at::Tensor>& gradients) {
    EXPECT_TRUE(same_bits(training.net->values(), weights));
    EXPECT_FALSE(gradients.empty());
  });
  const auto compute = test().dtype == at::kDouble ? at::kDouble : at::kFloat;
  training.optimizer->step([&] {
    const at::Tensor& chosen = ++pass == 1 ? training.net->weight : training.net->kernel;
    at::Tensor loss = (chosen.to(compute).pow(2) * 1.5 + training.net->bias.to(compute).sum()).sum();
    loss.backward();
    return loss;
  });
  EXPECT_EQ(pass, 2);
}

TEST_P(Contract, AGroupWithRhoZeroStaysWhereItIs) {
  if (test().base.name == "LBFGS") return;  // LibTorch's LBFGS has one group
  auto net = std::make_shared<Net>(test().dtype);
  const auto params = net->parameters();
  Groups groups;
  groups.emplace_back(std::vector<at::Tensor>(params.begin(), params.begin() + 3));
  groups.emplace_back(std::vector<at::Tensor>(params.begin() + 3, params.end()));
  const auto optimizer = test().method.make(groups);
  optimizer->base().param_groups()[1].options().set_lr(0.002);
  optimizer->options(1).rho(0.0);
  const auto before = net->values();
  int pass = 0;
  double squared = 0.0;
  optimizer->step([&] {
    if (++pass == 2)
      for (size_t i = 0; i < params.size(); ++i) {
        EXPECT_TRUE(i < 3 || same_bits(params[i], before[i])) << "parameter " << i;
        squared += (params[i].detach().to(at::kDouble) - before[i].to(at::kDouble)).square().sum().item<double>();
      }
    return net->closure()();
  });
  EXPECT_EQ(pass, 2);
  const double reported = optimizer->report().perturbation_norm.item<double>();
  EXPECT_GT(squared, 0.0);
  const bool wide = test().dtype == at::kFloat || test().dtype == at::kDouble;
  EXPECT_NEAR(std::sqrt(squared), reported, reported * (wide ? 1e-4 : 0.2));
  EXPECT_EQ(optimizer->base().param_groups()[1].options().get_lr(), 0.002);
}

TEST_P(Contract, AGroupAddedLaterInheritsTheDefaults) {
  if (!test().base.groups_later) return;
  auto net = std::make_shared<Net>(test().dtype);
  const auto params = net->parameters();
  const auto optimizer = test().method.make(
      {torch::optim::OptimizerParamGroup(std::vector<at::Tensor>(params.begin(), params.begin() + 3))});
  const double rho = optimizer->options(0).rho();
  optimizer->options(0).rho(0.0);
  optimizer->base().add_param_group(
      torch::optim::OptimizerParamGroup(std::vector<at::Tensor>(params.begin() + 3, params.end())));
  EXPECT_EQ(optimizer->options(1).rho(), rho);
  if (evaluates_once()) {
    net->closure()();
    EXPECT_NE(message_of([&] { optimizer->step(); }).find("parameters were added"), std::string::npos);
    optimizer->zero_grad();
    net->closure()();
    optimizer->step();
    EXPECT_EQ(optimizer->report().layers.size(), params.size());
  }
  optimizer->step(net->closure());
  EXPECT_TRUE(optimizer->report().perturbed);
}

TEST_P(Contract, TwoPhaseUseEqualsTheClosure) {
  if (!evaluates_once()) {
    Training training(test());
    EXPECT_NE(message_of([&] { training.optimizer->ascend(); }).find("use step(closure)"), std::string::npos);
    return;
  }
  Training with_closure(test()), by_hand(test());
  with_closure.steps(3);
  torch::manual_seed(11);
  for (int i = 0; i < 3; ++i) {
    by_hand.optimizer->base().zero_grad();
    by_hand.optimizer->remember_rng();
    by_hand.net->closure()();
    if (by_hand.optimizer->ascend()) by_hand.net->closure()();
    by_hand.optimizer->descend();
  }
  EXPECT_TRUE(same_bits(with_closure.net->values(), by_hand.net->values()));
  EXPECT_TRUE(same_bits(with_closure.net->buffer_values(), by_hand.net->buffer_values()));
}

/// All features of a step at once: three groups of which one is not perturbed, schedules, hooks, clipping.
void ask_for_everything(AnyOptimizer& optimizer) {
  optimizer.rho_schedule(steppe::schedule::linear(0.01, 0.1, 8));
  optimizer.options(2).rho(0.0);
  optimizer.base().param_groups()[1].options().set_lr(0.003);
  optimizer.every(2);
  optimizer.clip_grad_norm(0.5);
  optimizer.clip_grad_value(0.2);
  optimizer.after_pass_one([](std::vector<at::Tensor>& gradients) { gradients.front().mul_(1.5); });
  optimizer.before_descent([](std::vector<at::Tensor>& gradients) { gradients.back() = gradients.back() * 2; });
}

TEST_P(Contract, APlainLoopEqualsTheClosureBitForBit) {
  if (!evaluates_once()) return;
  for (const bool everything : {false, true}) {
    std::vector<Traces> expected;
    at::Tensor next;
    for (const bool plain : {false, true}) {
      Training training(test(), std::make_shared<Net>(test().dtype),
                        everything ? Training::pairs : Training::one_group);
      if (everything) ask_for_everything(*training.optimizer);
      for (size_t step = 0; step < (everything ? 3 : 2); ++step) {
        SCOPED_TRACE((everything ? "everything asked for, step " : "step ") + std::to_string(step));
        training.optimizer->base().param_groups()[0].options().set_lr(0.02 / static_cast<double>(step + 1));
        const at::Tensor loss = plain ? training.plain_step() : training.optimizer->step(training.net->closure());
        const Traces traces = traces_of(training, loss);
        plain ? expect_same(expected[step], traces) : expected.push_back(traces);
      }
      if (!plain)
        next = next_random_numbers();
      else
        EXPECT_TRUE(same_bits(next, next_random_numbers()));
    }
  }
}

TEST_P(Contract, ACheckpointOfAPlainLoopGoesOnWithAClosure) {
  if (!evaluates_once()) return;
  Training first(test(), std::make_shared<Net>(test().dtype), Training::pairs),
      second(test(), std::make_shared<Net>(test().dtype), Training::pairs);
  first.optimizer->rho_schedule(steppe::schedule::linear(0.01, 0.1, 8));
  first.optimizer->every(2);
  first.optimizer->clip_grad_norm(0.5);
  first.plain_steps(2);
  std::stringstream file;
  torch::save(first.optimizer->base(), file);
  for (size_t i = 0; i < first.net->parameters().size(); ++i) {
    const torch::NoGradGuard no_grad;
    second.net->parameters()[i].copy_(first.net->parameters()[i]);
  }
  for (size_t i = 0; i < first.net->buffers().size(); ++i) second.net->buffers()[i].copy_(first.net->buffers()[i]);
  torch::load(second.optimizer->base(), file);
  torch::manual_seed(21);
  first.plain_steps(2);
  torch::manual_seed(21);
  second.steps(2);
  EXPECT_EQ(second.optimizer->steps(), 4);
  EXPECT_TRUE(same_bits(first.net->values(), second.net->values()));
  EXPECT_TRUE(same_bits(first.net->buffer_values(), second.net->buffer_values()));
  EXPECT_TRUE(same_bits(first.optimizer->report().unclipped_norm, second.optimizer->report().unclipped_norm));
}

TEST_P(Contract, WithoutAClosureWeightsMoveInPassTwoAndComeBackBitForBit) {
  if (!evaluates_once()) return;
  Training training(test());
  std::vector<at::Tensor> weights;
  int passes = 0;
  training.net->kernel.register_hook([&](at::Tensor) {
    const bool moved = !same_bits(training.net->values(), weights);
    EXPECT_EQ(moved, ++passes % 2 == 0) << "pass " << passes;
  });
  training.optimizer->verify(steppe::Verify::Never);
  training.optimizer->before_descent(
      [&](std::vector<at::Tensor>&) { EXPECT_TRUE(same_bits(training.net->values(), weights)); });
  for (int step = 0; step < 3; ++step) {
    weights = training.net->values();
    training.plain_step();
  }
  EXPECT_EQ(passes, 6);
}

TEST_P(Contract, MisuseGivesAnErrorAndChangesNothing) {
  Training training(test());
  const auto weights = training.net->values();
  EXPECT_NE(
      message_of([&] { training.optimizer->step(); }).find(evaluates_once() ? "found no gradient" : "needs a closure"),
      std::string::npos);
  EXPECT_NE(message_of([&] { training.optimizer->descend(); }).find("before ascend()"), std::string::npos);
  training.optimizer->options(0).rho(std::nan(""));
  EXPECT_NE(message_of([&] { training.steps(1); }).find("rho must be finite and at least 0, got nan"),
            std::string::npos);
  training.optimizer->options(0).rho(0.05);
  EXPECT_TRUE(same_bits(training.net->values(), weights));
  if (!evaluates_once()) return;

  training.net->closure()();
  ASSERT_TRUE(training.optimizer->ascend());
  EXPECT_NE(message_of([&] { training.optimizer->ascend(); }).find("twice"), std::string::npos);
  EXPECT_NE(message_of([&] { training.steps(1); }).find("between ascend() and descend()"), std::string::npos);
  EXPECT_NE(message_of([&] { training.optimizer->step(); }).find("between ascend() and descend()"), std::string::npos);
  std::stringstream file;
  EXPECT_NE(message_of([&] { torch::save(training.optimizer->base(), file); }).find("save() was called between ascend() and descend()"),
            std::string::npos);
  if (test().base.groups_later) {
    training.optimizer->base().add_param_group(
        torch::optim::OptimizerParamGroup(std::vector<at::Tensor>{torch::ones({2}, device()).requires_grad_()}));
    EXPECT_NE(message_of([&] { training.optimizer->descend(); }).find("changed between"), std::string::npos);
  }
  training.optimizer->cancel();
  EXPECT_TRUE(same_bits(training.net->values(), weights));
  EXPECT_NE(message_of([&] { training.plain_steps(1); }).find("is not recorded, since"), std::string::npos);
}

TEST_P(Contract, StepsThatAreNotPerturbedArePlainSteps) {
  if (!evaluates_once()) return;
  Training training(test());
  training.optimizer->every(3);
  int passes = 0;
  for (int i = 0; i < 6; ++i)
    training.optimizer->step([&] {
      ++passes;
      return training.net->closure()();
    });
  EXPECT_EQ(passes, 8);
  EXPECT_FALSE(training.optimizer->report().perturbed);
}

TEST_P(Contract, WithoutReplayTheSecondPassDrawsItsOwnMasks) {
  Training training(test(), 1e-300);
  training.optimizer->replay_rng(false);
  training.steps(1);
  EXPECT_NE(training.optimizer->report().sharpness.item<double>(), 0.0);
  if (!evaluates_once()) return;
  Training without_closure(test(), 1e-300);
  without_closure.optimizer->replay_rng(false);
  without_closure.plain_steps(1);
  EXPECT_TRUE(same_bits(without_closure.optimizer->report().sharpness, training.optimizer->report().sharpness));
  EXPECT_TRUE(same_bits(without_closure.net->values(), training.net->values()));
}

/// Methods whose only pass is made at w + e. The first steps are at w: there is no momentum and no last gradient yet.
class AheadContract : public Contract {};

TEST_P(AheadContract, RhoZeroEqualsTheBaseBitForBit) {
  Training ours(test(), 0.0), by_hand(test(), 0.0);
  ours.steps(4);
  const at::Tensor ours_next = next_random_numbers();
  PlainTraining plain(test());
  plain.steps(4);
  EXPECT_TRUE(same_bits(ours.net->values(), plain.net->values()));
  EXPECT_TRUE(same_bits(ours.net->buffer_values(), plain.net->buffer_values()));
  EXPECT_TRUE(same_bits(ours_next, next_random_numbers()));
}

TEST_P(AheadContract, WeightsMoveInTheOnlyPassAndComeBackBitForBit) {
  Training training(test());
  std::vector<at::Tensor> before;
  int passes = 0;
  training.optimizer->before_descent(
      [&](std::vector<at::Tensor>&) { EXPECT_TRUE(same_bits(training.net->values(), before)); });
  for (int step = 0; step < 3; ++step) {
    before = training.net->values();
    const at::Tensor loss = training.optimizer->step([&] {
      ++passes;
      EXPECT_EQ(same_bits(training.net->values(), before), step == 0);
      return training.net->closure()();
    });
    const steppe::Report& report = training.optimizer->report();
    EXPECT_EQ(report.perturbed, step > 0);
    EXPECT_TRUE(same_bits(step > 0 ? report.perturbed_loss : report.loss, loss.detach()));
    EXPECT_EQ(report.loss.defined(), step == 0);
  }
  EXPECT_EQ(passes, 3);
}

TEST_P(AheadContract, AnExceptionPutsEverythingBackAndIsForgotten) {
  for (const bool in_hook : {false, true}) {
    Training training(test()), twin(test());
    for (Training* each : {&training, &twin}) {
      torch::manual_seed(11);
      each->steps(2);
    }
    const auto weights = training.net->values();
    const auto buffers = training.net->buffer_values();
    bool fails = true;
    training.optimizer->before_descent([&](std::vector<at::Tensor>&) {
      if (fails && in_hook) throw ThrownOnPurpose();
    });
    EXPECT_THROW(training.optimizer->step([&] {
      const at::Tensor loss = training.net->closure()();
      if (!in_hook) throw ThrownOnPurpose();
      return loss;
    }),
                 ThrownOnPurpose);
    fails = false;
    EXPECT_TRUE(same_bits(training.net->values(), weights));
    EXPECT_TRUE(same_bits(training.net->buffer_values(), buffers));
    EXPECT_EQ(training.optimizer->steps(), 2);
    for (Training* each : {&training, &twin}) {
      torch::manual_seed(5);
      each->steps(2);
    }
    EXPECT_TRUE(same_bits(training.net->values(), twin.net->values()));
  }
}

TEST_P(AheadContract, ACheckpointResumesBitIdentically) {
  Training first(test()), second(test());
  first.optimizer->rho_schedule(steppe::schedule::linear(0.01, 0.1, 8));
  first.steps(3);
  std::stringstream file;
  torch::save(first.optimizer->base(), file);
  for (size_t i = 0; i < first.net->parameters().size(); ++i) {
    const torch::NoGradGuard no_grad;
    second.net->parameters()[i].copy_(first.net->parameters()[i]);
  }
  for (size_t i = 0; i < first.net->buffers().size(); ++i) second.net->buffers()[i].copy_(first.net->buffers()[i]);
  torch::load(second.optimizer->base(), file);
  for (Training* each : {&first, &second}) {
    torch::manual_seed(21);
    each->steps(3);
  }
  EXPECT_EQ(second.optimizer->steps(), 6);
  EXPECT_TRUE(same_bits(first.net->values(), second.net->values()));
}

TEST_P(AheadContract, APassBetweenAscendAndDescendEqualsTheClosure) {
  Training with_closure(test()), by_hand(test());
  with_closure.steps(3);
  torch::manual_seed(11);
  for (int i = 0; i < 3; ++i) {
    if (i == 1) {  // cancelled, then made
      const auto weights = by_hand.net->values();
      EXPECT_TRUE(by_hand.optimizer->ascend());
      EXPECT_FALSE(same_bits(by_hand.net->values(), weights));
      by_hand.optimizer->cancel();
      EXPECT_TRUE(same_bits(by_hand.net->values(), weights));
    }
    EXPECT_TRUE(by_hand.optimizer->ascend());
    by_hand.optimizer->zero_grad();
    by_hand.net->closure()();
    by_hand.optimizer->descend();
  }
  EXPECT_TRUE(same_bits(with_closure.net->values(), by_hand.net->values()));
  EXPECT_TRUE(same_bits(with_closure.net->buffer_values(), by_hand.net->buffer_values()));
}

TEST_P(AheadContract, WithoutAClosureIsAnErrorThatSaysWhatToDo) {
  Training training(test());
  const auto weights = training.net->values();
  training.net->closure()();
  EXPECT_NE(message_of([&] { training.optimizer->step(); }).find("use step(closure), or call ascend() before the forward"),
            std::string::npos);
  EXPECT_TRUE(same_bits(training.net->values(), weights));
  EXPECT_EQ(training.optimizer->steps(), 0);
}

TEST_P(AheadContract, ANonFiniteGradientDoesNotPoisonTheSteps) {
  Training training(test());
  training.steps(1);
  const auto before = training.net->values();
  training.optimizer->before_descent([](std::vector<at::Tensor>& gradients) {
    for (at::Tensor& gradient : gradients) gradient.nan_to_num_(0, 0, 0);
  });
  training.optimizer->step([&] {
    at::Tensor loss = training.net->loss() * std::numeric_limits<double>::infinity();
    loss.backward();
    return loss;
  });
  training.steps(2);
  for (const at::Tensor& value : training.net->values()) EXPECT_TRUE(value.isfinite().all().item<bool>());
}

TEST_P(AheadContract, StepsThatAreLeftOutAreMadeAtTheWeights) {
  Training training(test());
  training.optimizer->every(2);
  for (int step = 0; step < 4; ++step) {
    const auto before = training.net->values();
    training.optimizer->step([&] {
      EXPECT_EQ(same_bits(training.net->values(), before), step != 2);
      return training.net->closure()();
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Every, AheadContract, testing::ValuesIn(all_cases(/*ahead=*/true)),
                         [](const testing::TestParamInfo<Case>& each) { return each.param.name(); });

INSTANTIATE_TEST_SUITE_P(Every, Contract, testing::ValuesIn(all_cases(/*ahead=*/false)),
                         [](const testing::TestParamInfo<Case>& each) { return each.param.name(); });

}  // namespace
}  // namespace contract
