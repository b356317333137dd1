// Directions that remember something from step to step, in numbers worked out by hand.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <cmath>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include <steppe/optimizers.hpp>

#include "../errors.hpp"

namespace steppe {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

at::Tensor vector_of(std::vector<double> values, bool grad = true) {
  return torch::tensor(values, at::kDouble).requires_grad_(grad);
}

/// f(w) = |w|^2 / 2, whose gradient is w.
std::function<at::Tensor()> bowl(const at::Tensor& w) {
  return [w] {
    at::Tensor loss = w.square().sum() / 2;
    loss.backward();
    return loss;
  };
}

void expect_near(const at::Tensor& found, const std::vector<double>& expected) {
  EXPECT_LE((found.detach() - vector_of(expected, false)).abs().max().item<double>(), 1e-14) << found;
}

TEST(Momentum, ThePassIsMadeAgainstTheBasesMomentum) {
  const at::Tensor w = vector_of({3, 4});
  MSAM<SGD> msam({w}, SGDOptions(0.1).momentum(0.9), Options().rho(1.0));
  msam.step(bowl(w));  // no momentum yet
  expect_near(w, {2.7, 3.6});
  msam.step(bowl(w));  // at (2.1, 2.8); the buffer is .9 (3, 4) + (2.1, 2.8)
  expect_near(w, {2.22, 2.96});
  EXPECT_NEAR(msam.report().perturbation_norm.item<double>(), 1.0, 1e-14);
  EXPECT_NEAR(msam.report().perturbed_loss.item<double>(), 3.5 * 3.5 / 2, 1e-14);
  EXPECT_FALSE(msam.report().loss.defined());
}

TEST(Momentum, ABaseWithoutOneGetsAnAverageOfOurOwn) {
  const at::Tensor w = vector_of({3, 4});
  MSAM<SGD> msam({w}, SGDOptions(0.1), Options().rho(1.0));
  msam.step(bowl(w));
  msam.step(bowl(w));  // v = .1 (3, 4): the same point (2.1, 2.8)
  expect_near(w, {2.49, 3.32});
  EXPECT_GE(msam.memory_bytes(), 16);
  const at::Tensor x = vector_of({3, 4});
  MSAM<torch::optim::Adagrad> over_adagrad({x}, torch::optim::AdagradOptions(0.1), Options().rho(1.0));
  over_adagrad.step(bowl(x));
  over_adagrad.step(bowl(x));
  EXPECT_TRUE(over_adagrad.report().perturbed);
}

TEST(LastGradient, ThePassIsMadeAlongTheGradientOfTheStepBefore) {
  const at::Tensor w = vector_of({3, 4});
  S2SAM<SGD> sam({w}, SGDOptions(0.1), Options().rho(1.0));
  sam.step(bowl(w));
  expect_near(w, {2.7, 3.6});
  sam.step(bowl(w));  // at (3.3, 4.4)
  expect_near(w, {2.37, 3.16});
}

// The hook represents any change of the gradients before the base's step: the ascent uses the gradients of the pass.
TEST(LastGradient, IsWhatThePassGaveNotWhatTheBaseConsumed) {
  const at::Tensor w = vector_of({3, 4});
  S2SAM<SGD> sam({w}, SGDOptions(0.1), Options().rho(1.0));
  sam.before_descent([](std::vector<at::Tensor>& gradients) { gradients[0].mul_(vector_of({1, 0}, false)); });
  sam.step(bowl(w));
  expect_near(w, {2.7, 4});
  sam.step(bowl(w));  // at (2.7 + .6, 4 + .8)
  expect_near(w, {2.37, 4});
}

TEST(LastGradient, DoesNotComeToRestAtTheMinimumOfABowl) {
  const at::Tensor w = vector_of({3, 4});
  S2SAM<SGD> sam({w}, SGDOptions(0.1), Options().rho(0.5));
  for (int i = 0; i < 400; ++i) sam.step(bowl(w));
  EXPECT_GT(w.detach().norm().item<double>(), 0.01);
}

TEST(AheadOfPassOne, WhatNeedsAPassBeforeTheAscentIsRefused) {
  const at::Tensor w = vector_of({3, 4});
  MSAM<SGD> msam({w}, SGDOptions(0.1));
  EXPECT_EQ(msam.options().rho(), 3.0);
  EXPECT_NE(message_of([&] { msam.ascents(2); }).find("only pass comes after its ascent"), std::string::npos);
  EXPECT_NE(message_of([&] { msam.ascend_on(bowl(w)); }).find("only pass comes after its ascent"), std::string::npos);
}

TEST(Friendly, TakesTheAverageOfEarlierGradientsAway) {
  const at::Tensor w = vector_of({3, 4});
  FriendlySAM<SGD> sam({w}, SGDOptions(0.1), Options().rho(1.0), ascent::Friendly().lambda(0.5));
  const at::Tensor targets = vector_of({0, 0}, false);
  const auto pass = [&] {
    at::Tensor loss = (w - targets).square().sum() / 2;
    loss.backward();
    return loss;
  };
  sam.step(pass);  // d = g = (3, 4): the pass at (3.6, 4.8)
  expect_near(w, {2.64, 3.52});
  targets.copy_(vector_of({-0.36, 3.52}, false));
  sam.step(pass);  // g = (3, 0), m = (3, 4), d = (0, -4): the pass at (2.64, 2.52), whose gradient is (3, -1)
  expect_near(w, {2.34, 3.62});
  targets.copy_(vector_of({2.34, 0.62}, false));
  sam.step(pass);  // g = (0, 3), m = .5 (3, 4) + .5 (3, 0) = (3, 2), d = (-3, 1)
  const double root = std::sqrt(10.0);
  expect_near(w, {2.34 + 0.3 / root, 3.62 - 0.1 * (3 + 1 / root)});
}

TEST(VarianceSuppressed, AveragesTheDirections) {
  const at::Tensor w = vector_of({3, 4});
  VaSSO<SGD> sam({w}, SGDOptions(0.1), Options().rho(1.0), ascent::VarianceSuppressed().theta(0.5));
  const at::Tensor targets = vector_of({0, 0}, false);
  const auto pass = [&] {
    at::Tensor loss = (w - targets).square().sum() / 2;
    loss.backward();
    return loss;
  };
  sam.step(pass);
  targets.copy_(vector_of({-0.36, 3.52}, false));
  sam.step(pass);  // g = (3, 0), d = .5 (3, 4) + .5 (3, 0) = (3, 2)
  const double root = std::sqrt(13.0);
  expect_near(w, {2.64 - 0.1 * (3 + 3 / root), 3.52 - 0.1 * 2 / root});
}

TEST(FisherMask, PerturbsTheComponentsOfHighestInformationByTheWholeNorm) {
  const at::Tensor w = vector_of({1, 2, 4, 10});
  SSAM<SGD> sam({w}, SGDOptions(0.0), Options().rho(11.0), ascent::FisherMask().interval(2));
  std::vector<at::Tensor> seen;
  const auto pass = [&] {
    seen.push_back(w.detach().clone());
    return bowl(w)();
  };
  sam.step(pass);  // |w| = 11: e = mask * w
  expect_near(seen[1], {1, 2, 8, 20});
  EXPECT_NEAR(sam.report().gradient_norm.item<double>(), 11.0, 1e-14);
  w.data().copy_(vector_of({10, 4, 2, 1}, false));
  sam.step(pass);  // still the mask of step 0
  expect_near(seen[3], {10, 4, 4, 2});
  sam.step(pass);  // a new one
  expect_near(seen[5], {20, 8, 2, 1});
}

TEST(FisherMask, MasksFromSingleSamplesStayUntilTheyAreRenewed) {
  const at::Tensor w = vector_of({1, 2, 4, 10});
  SSAM<SGD> sam({w}, SGDOptions(0.0), Options().rho(11.0), ascent::FisherMask().interval(0));
  std::vector<at::Tensor> seen;
  const auto pass = [&] {
    seen.push_back(w.detach().clone());
    return bowl(w)();
  };
  sam.step(pass);  // no mask yet: all of it
  expect_near(seen[1], {2, 4, 8, 20});
  const at::Tensor inputs = torch::tensor({{3.0, 0.0, 0.0, 1.0}, {0.0, 2.0, 0.0, -1.0}}, at::kDouble);
  sam.ascent().renew({w}, 2, [&](int64_t k) { (w * inputs[k]).sum().backward(); });  // mean of squares: 4.5, 2, 0, 1
  EXPECT_FALSE(w.grad().defined());
  for (int i = 0; i < 2; ++i) {
    sam.step(pass);
    expect_near(seen.back(), {2, 4, 4, 10});
  }
  std::stringstream file;
  torch::save(sam, file);
  SSAM<SGD> again({w}, SGDOptions(0.0));
  torch::load(again, file);
  again.step(pass);
  expect_near(seen.back(), {2, 4, 4, 10});
}

TEST(WithMemory, SettingsOutOfRangeAreNamed) {
  const at::Tensor w = vector_of({3, 4});
  const auto says = [&](auto ascent) {
    using Ascent = decltype(ascent);
    return message_of([&] { SharpnessAware<SGD, Ascent>({w}, SGDOptions(0.1), Options(), ascent); });
  };
  EXPECT_NE(says(ascent::Friendly().lambda(1.0)).find("lambda() must be in [0, 1), got 1"), std::string::npos);
  EXPECT_NE(says(ascent::VarianceSuppressed().theta(0.0)).find("theta() must be in (0, 1], got 0"), std::string::npos);
  EXPECT_NE(says(ascent::FisherMask().sparsity(1.0)).find("sparsity() must be in [0, 1), got 1"), std::string::npos);
  EXPECT_NE(says(ascent::Momentum().decay(1.5)).find("decay() must be in [0, 1), got 1.5"), std::string::npos);
}

TEST(WithMemory, WhatAnotherModelKeptIsRefusedAndNothingChanges) {
  const at::Tensor w = vector_of({3, 4}), other = vector_of({1, 2, 3});
  FriendlySAM<SGD> sam({w}, SGDOptions(0.1)), of_another({other}, SGDOptions(0.1));
  sam.step(bowl(w));
  of_another.step(bowl(other));
  std::stringstream file;
  torch::save(sam, file);
  EXPECT_NE(message_of([&] { torch::load(of_another, file); }).find("of shape"), std::string::npos);
  EXPECT_EQ(of_another.steps(), 1);
}

template <class Optimizer>
void expect_to_recover(const std::string& name) {
  const at::Tensor w = vector_of({3, 4});
  Optimizer optimizer({w}, SGDOptions(0.01));
  optimizer.before_descent([](std::vector<at::Tensor>& gradients) { gradients[0].nan_to_num_(0, 0, 0); });
  for (int i = 0; i < 6; ++i) {
    optimizer.step([&] {
      at::Tensor loss = w.square().sum() * (i == 2 ? std::numeric_limits<double>::infinity() : 0.5 + 0.1 * i);
      loss.backward();
      return loss;
    });
  }
  ASSERT_TRUE(optimizer.report().perturbed) << name;
  EXPECT_GT(optimizer.report().perturbation_norm.template item<double>(), 0.0) << name;
}

TEST(WithMemory, AGradientThatIsNotFiniteIsNotRemembered) {
  expect_to_recover<FriendlySAM<SGD>>("Friendly SAM");
  expect_to_recover<VaSSO<SGD>>("VaSSO");
  expect_to_recover<MSAM<SGD>>("MSAM");
  expect_to_recover<S2SAM<SGD>>("S2-SAM");
}

TEST(WithMemory, BelongsToTheParameterWhereverItStandsInItsGroup) {
  const at::Tensor w = vector_of({3, 4}), newcomer = vector_of({1, 2});
  FriendlySAM<SGD> sam({w}, SGDOptions(0.0), Options().rho(1.0));
  sam.step(bowl(w));
  auto& params = sam.param_groups()[0].params();
  params.insert(params.begin(), newcomer);
  sam.step([&] {
    at::Tensor loss = (w.square().sum() + newcomer.square().sum()) / 2;
    loss.backward();
    return loss;
  });  // of w: d = g - m = 0
  EXPECT_EQ(sam.report().layer_perturbation_norm[1].item<double>(), 0.0);
  EXPECT_NEAR(sam.report().layer_perturbation_norm[0].item<double>(), 1.0, 1e-14);
  params.erase(params.begin());
  sam.step(bowl(w));
  EXPECT_EQ(sam.report().perturbation_norm.item<double>(), 0.0);
}

TEST(WithMemory, ARefusedCallBetweenAscendAndDescendLosesNothing) {
  const at::Tensor w = vector_of({3, 4});
  FriendlySAM<SGD> sam({w}, SGDOptions(0.0), Options().rho(1.0));
  bowl(w)();
  ASSERT_TRUE(sam.ascend());
  EXPECT_ANY_THROW(sam.ascend());
  EXPECT_ANY_THROW(sam.remember_rng());
  bowl(w)();
  sam.descend();
  sam.step(bowl(w));  // d = g - m = 0
  EXPECT_EQ(sam.report().perturbation_norm.item<double>(), 0.0);
}

TEST(FisherMask, MasksMadeBeforeTheFirstStepFindTheirParameters) {
  const at::Tensor frozen = vector_of({1, 2}), w = vector_of({3, 4});
  SSAM<SGD> sam({frozen, w}, SGDOptions(0.0), Options().rho(5.0), ascent::FisherMask().interval(0));
  sam.ascent().renew({frozen, w}, 1, [&](int64_t) { (w * vector_of({2, 1}, false)).sum().backward(); });
  std::stringstream file;
  torch::save(sam, file);
  at::Tensor seen;
  const auto pass = [&] {
    seen = w.detach().clone();
    return bowl(w)();
  };
  sam.step(pass);
  expect_near(seen, {6, 4});
  SSAM<SGD> again({frozen, w}, SGDOptions(0.0));
  torch::load(again, file);
  again.step(pass);
  expect_near(seen, {6, 4});
}

TEST(FisherMask, SmallGradientsOf16BitsAreRankedToo) {
  const at::Tensor w = torch::linspace(1, 2, 100, at::kFloat).mul(1e-4).to(at::kHalf).requires_grad_();
  SSAM<SGD> sam({w}, SGDOptions(0.0), Options().rho(1.0));
  const at::Tensor before = w.detach().clone();
  int64_t moved = 0;
  sam.step([&] {
    moved = (w.detach() != before).sum().item<int64_t>();
    at::Tensor loss = w.to(at::kFloat).square().sum() / 2;
    loss.backward();
    return loss;
  });
  EXPECT_NEAR(static_cast<double>(moved), 50.0, 5.0);
}

}  // namespace
}  // namespace steppe
