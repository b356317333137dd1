// Descents that use the gradients of all groups together, in numbers worked out by hand.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>

#include "../errors.hpp"

namespace steppe {
namespace {

using torch::optim::OptimizerParamGroup;
using torch::optim::SGD;
using torch::optim::SGDOptions;

/// f(x, y) = (x^2 + 2 y^2) / 2 at (1, 1), each variable a group of its own. With rho = sqrt 5: g = (1, 2), e = (1, 2),
/// g+ = (2, 6), <g, g+> = 14, |g+|^2 = 40.
struct Valley {
  at::Tensor x = torch::ones({1}, at::kDouble).requires_grad_(), y = torch::ones({1}, at::kDouble).requires_grad_();
  int passes = 0;

  std::vector<OptimizerParamGroup> groups() const {
    return {OptimizerParamGroup(std::vector<at::Tensor>{x}), OptimizerParamGroup(std::vector<at::Tensor>{y})};
  }
  at::Tensor loss() const { return (x.square() + 2 * y.square()).sum() / 2; }
  at::Tensor pass() {
    ++passes;
    at::Tensor value = loss();
    value.backward();
    return value;
  }
  template <class Optimizer>
  void step(Optimizer& optimizer) {
    optimizer.step([this] { return pass(); });
  }
  void expect_gradient(double of_x, double of_y) const {
    EXPECT_NEAR(x.grad().item<double>(), of_x, 1e-13);
    EXPECT_NEAR(y.grad().item<double>(), of_y, 1e-13);
  }
  void expect_at(double at_x, double at_y) const {
    EXPECT_NEAR(x.item<double>(), at_x, 1e-13);
    EXPECT_NEAR(y.item<double>(), at_y, 1e-13);
  }
};

const Options kRoot5 = Options().rho(std::sqrt(5.0));

TEST(SurrogateGap, TakesAwayThePartOfTheFirstGradientAcrossTheSecond) {
  Valley valley;
  GSAM<SGD> gsam(valley.groups(), SGDOptions(0.0), kRoot5);
  valley.step(gsam);  // g - .35 g+ = (.3, -.1)
  valley.expect_gradient(2 - 0.4 * 0.3, 6 + 0.4 * 0.1);
  gsam.descent(1).alpha(0.0);  // a setting of each group
  valley.step(gsam);
  valley.expect_gradient(2 - 0.4 * 0.3, 6);
}

TEST(Weighted, CoupledAddsToTheGradientAndDecoupledToTheWeights) {
  Valley coupled, decoupled;
  WSAM<SGD> one(coupled.groups(), SGDOptions(0.1), kRoot5, {}, descent::Weighted().gamma(0.75).decoupled(false));
  coupled.step(one);  // g + 3 (g+ - g) = (4, 14)
  coupled.expect_gradient(4, 14);
  coupled.expect_at(1 - 0.4, 1 - 1.4);
  WSAM<SGD> two(decoupled.groups(), SGDOptions(0.1), kRoot5, {}, descent::Weighted().gamma(0.75));
  two.param_groups()[1].options().set_lr(0.2);
  std::vector<double> consumed;
  two.before_descent([&](std::vector<at::Tensor>& gradients) {
    for (const at::Tensor& g : gradients) consumed.push_back(g.item<double>());
  });
  decoupled.step(two);
  EXPECT_EQ(consumed, (std::vector<double>{1, 2}));
  decoupled.expect_at(1 - 0.1 * (1 + 3 * 1), 1 - 0.2 * (2 + 3 * 4));
}

TEST(Weighted, HalfIsSAM) {
  Valley ours, theirs;
  WSAM<SGD> wsam(ours.groups(), SGDOptions(0.1), kRoot5, {}, descent::Weighted().gamma(0.5).decoupled(false));
  SAM<SGD> sam(theirs.groups(), SGDOptions(0.1), kRoot5);
  ours.step(wsam);
  theirs.step(sam);
  EXPECT_TRUE(ours.x.equal(theirs.x) && ours.y.equal(theirs.y));
}

TEST(Rescaled, GivesTheSecondGradientTheLengthOfTheFirst) {
  Valley valley;
  StableSAM<SGD> sam(valley.groups(), SGDOptions(0.0), kRoot5);
  valley.step(sam);
  const double factor = std::sqrt(5.0 / 40.0);
  valley.expect_gradient(2 * factor, 6 * factor);
}

TEST(Reuse, PlainStepsAddThePartAcrossThatThePerturbedOneKept) {
  Valley valley;
  LookSAM<SGD> sam(valley.groups(), SGDOptions(0.1), kRoot5);
  valley.step(sam);  // g_v = g+ - 14/5 g = (-.8, .4)
  valley.expect_at(0.8, 0.4);
  for (int i = 1; i < 5; ++i) {
    const double gx = valley.x.item<double>(), gy = 2 * valley.y.item<double>();
    const double factor = 0.3 * std::hypot(gx, gy) / std::sqrt(0.8);
    valley.step(sam);
    valley.expect_gradient(gx - 0.8 * factor, gy + 0.4 * factor);
    EXPECT_FALSE(sam.report().perturbed);
  }
  EXPECT_EQ(valley.passes, 6);
  EXPECT_EQ(sam.report().perturbed_share, 0.2);
  valley.step(sam);
  EXPECT_TRUE(sam.report().perturbed);
}

TEST(Reuse, MeasuredTakesTheRatioOfThePerturbedStep) {
  Valley valley;
  LookSAM<SGD> sam(valley.groups(), SGDOptions(0.0), kRoot5, {}, descent::Reuse().measured(true));
  valley.step(sam);
  valley.step(sam);  // |g_v| / |g| * |g| / |g_v| = 1: the same weights, so g + g_v
  valley.expect_gradient(1 - 0.8, 2 + 0.4);
}

TEST(Reuse, PerTensorLooksAtEachTensorByItself) {
  const at::Tensor w = torch::ones({2}, at::kDouble).requires_grad_(), v = torch::ones({1}, at::kDouble).requires_grad_();
  LookSAM<SGD> sam({w, v}, SGDOptions(0.0), Options().rho(3.0), {}, descent::Reuse().per_tensor(true).alpha(1.0));
  const at::Tensor slopes = torch::tensor({1.0, 2.0}, at::kDouble);
  const auto pass = [&] {
    at::Tensor loss = ((slopes * w.square()).sum() + 2 * v.square().sum()) / 2;
    loss.backward();
    return loss;
  };
  sam.step(pass);  // g = (1, 2 | 2), e = g; g+ = (2, 6 | 6); of w: (-.8, .4), of v: 0
  sam.step(pass);
  const double factor = std::sqrt(5.0 / 0.8);
  EXPECT_NEAR(w.grad()[0].item<double>(), 1 - 0.8 * factor, 1e-13);
  EXPECT_NEAR(w.grad()[1].item<double>(), 2 + 0.4 * factor, 1e-13);
  EXPECT_EQ(v.grad().item<double>(), 2.0);
}

TEST(Reuse, ACorrectionThatIsNotFiniteIsNotKept) {
  Valley valley;
  LookSAM<SGD> sam(valley.groups(), SGDOptions(0.0), kRoot5);
  sam.before_descent([](std::vector<at::Tensor>& gradients) {
    for (at::Tensor& gradient : gradients) gradient.nan_to_num_(0, 0, 0);
  });
  sam.step([&] {
    at::Tensor loss = valley.loss() * (++valley.passes == 2 ? std::numeric_limits<double>::infinity() : 1.0);
    loss.backward();
    return loss;
  });
  valley.step(sam);
  valley.expect_gradient(1, 2);
}

TEST(Extrapolated, TurnsFromTheFirstGradientPastTheSecond) {
  const double psi = std::acos(14.0 / std::sqrt(5.0 * 40.0));
  for (const double a : {0.0, 0.7, 1.0, 1.6}) {
    Valley valley;
    XSAM<SGD> sam(valley.groups(), SGDOptions(0.0), kRoot5);
    sam.descent(0).fixed(a);
    sam.descent(1).fixed(a);
    valley.step(sam);
    const double first = std::sqrt(40.0) * std::sin((1 - a) * psi) / std::sin(psi) / std::sqrt(5.0);
    const double second = std::sin(a * psi) / std::sin(psi);
    valley.expect_gradient(first * 1 + second * 2, first * 2 + second * 6);
  }
}

TEST(Extrapolated, SearchesForTheHighestLossByLossesAlone) {
  Valley valley;
  XSAM<SGD> sam(valley.groups(), SGDOptions(0.0), kRoot5);
  int losses = 0;
  const auto step = [&] {
    sam.step([&] { return valley.pass(); },
             [&] {
               ++losses;
               EXPECT_FALSE(c10::GradMode::is_enabled());
               return valley.loss();
             });
  };
  step();
  EXPECT_EQ(valley.passes, 2);
  EXPECT_EQ(losses, 21);
  const double psi = std::acos(14.0 / std::sqrt(5.0 * 40.0));
  double best = 0, highest = 0;
  for (int i = 0; i <= 20; ++i) {
    const double first = std::sin((1 - i / 10.0) * psi) / std::sin(psi) / std::sqrt(5.0);
    const double second = std::sin(i / 10.0 * psi) / std::sin(psi) / std::sqrt(40.0);
    const double at_x = 1 + 0.3 * (first * 1 + second * 2), at_y = 1 + 0.3 * (first * 2 + second * 6);
    const double loss = (at_x * at_x + 2 * at_y * at_y) / 2;
    if (loss > highest) {
      highest = loss;
      best = i / 10.0;
    }
  }
  EXPECT_EQ(sam.descent().a(), best);
  EXPECT_GT(best, 0.0);
  step();
  EXPECT_EQ(losses, 21);  // until the interval is over
  valley.expect_at(1, 1);
}

// Without a closure for the loss, whole passes are made and their gradients discarded.
TEST(Extrapolated, TheSearchLeavesGradientsAndWeightsAlone) {
  Valley by_losses, by_passes, plain;
  XSAM<SGD> one(by_losses.groups(), SGDOptions(0.1), kRoot5), two(by_passes.groups(), SGDOptions(0.1), kRoot5),
      three(plain.groups(), SGDOptions(0.1), kRoot5);
  one.step([&] { return by_losses.pass(); }, [&] { return by_losses.loss(); });
  by_passes.step(two);
  EXPECT_EQ(by_passes.passes, 23);
  plain.pass();
  three.step();
  for (const Valley* other : {&by_passes, &plain}) {
    EXPECT_TRUE(by_losses.x.equal(other->x));
    EXPECT_TRUE(by_losses.y.equal(other->y));
    EXPECT_TRUE(by_losses.x.grad().equal(other->x.grad()));
  }
  Valley by_hand;
  XSAM<SGD> four(by_hand.groups(), SGDOptions(0.1), kRoot5);
  by_hand.pass();
  ASSERT_TRUE(four.ascend());
  by_hand.pass();
  EXPECT_NE(message_of([&] { four.descend(); }).find("use step(closure), or descent().fixed(a)"), std::string::npos);
}

TEST(Ascents, EachStartsWhereTheOneBeforeHasLed) {
  Valley valley;
  SAM<SGD> sam(valley.groups(), SGDOptions(0.0), Options().rho(2 * std::sqrt(5.0)));
  sam.ascents(2);
  valley.step(sam);  // e_1 = (1, 2), its gradient (2, 6), e_2 = sqrt(5 / 40) (2, 6)
  const double factor = std::sqrt(5.0 / 40.0);
  valley.expect_gradient(2 + 2 * factor, 2 * (3 + 6 * factor));
  valley.expect_at(1, 1);
  EXPECT_EQ(valley.passes, 3);
  valley.pass();
  EXPECT_NE(message_of([&] { sam.ascend(); }).find("use step(closure)"), std::string::npos);
  std::stringstream file;
  torch::save(sam, file);
  SAM<SGD> again(valley.groups(), SGDOptions(0.0));
  torch::load(again, file);
  valley.passes = 0;
  valley.step(again);
  EXPECT_EQ(valley.passes, 3);
}

TEST(AscendOn, AnotherBatchGivesThePerturbation) {
  Valley valley;
  SAM<SGD> sam(valley.groups(), SGDOptions(0.0), Options().rho(5.0));
  sam.ascend_on([&] {
    at::Tensor loss = (3 * valley.x + 4 * valley.y).sum();
    loss.backward();
    return loss;
  });
  at::Tensor loss = sam.step([&] { return valley.pass(); });
  EXPECT_EQ(loss.item<double>(), 7.0);
  valley.expect_gradient(4, 10);  // at (1, 1) + (3, 4)
  EXPECT_EQ(valley.passes, 1);
  EXPECT_NE(message_of([&] { sam.step(); }).find("give step() the closure"), std::string::npos);
  sam.ascend_on(nullptr);
  valley.step(sam);
  EXPECT_EQ(valley.passes, 3);
}

TEST(Ascents, AreTakenBackFromTheLastToTheFirstWhateverEndsTheStep) {
  for (const int failing : {1, 2, 3, 4}) {
    Valley valley;
    SAM<SGD> sam(valley.groups(), SGDOptions(0.1), kRoot5);
    sam.ascents(3);
    EXPECT_ANY_THROW(sam.step([&] {
      at::Tensor loss = valley.pass();
      if (valley.passes == failing) throw std::runtime_error("on purpose");
      return loss;
    }));
    EXPECT_EQ(valley.passes, failing);
    EXPECT_TRUE(valley.x.equal(torch::ones({1}, at::kDouble)) && valley.y.equal(torch::ones({1}, at::kDouble)));
  }
}

TEST(Ascents, ShareTheRadiusThatFollowsTheNorm) {
  const at::Tensor w = torch::ones({1}, at::kDouble).requires_grad_();
  SAM<SGD> sam({w}, SGDOptions(0.0), Options().rho(1.0).radius(schedule::inverse_norm(schedule::constant(1.0), 0.0)));
  sam.ascents(4);
  sam.step([&] {
    at::Tensor loss = 5 * w.sum() + 0 * w.sum();
    loss.backward();
    return loss;
  });
  EXPECT_NEAR(4 * sam.report().perturbation_norm.item<double>(), 0.2, 1e-15);
  FriendlySAM<SGD> friendly({w}, SGDOptions(0.0));
  EXPECT_NE(message_of([&] { friendly.ascents(2); }).find("takes one gradient a step"), std::string::npos);
}

TEST(AscendOn, IsRefusedWhereTheFirstGradientIsUsedForMore) {
  Valley valley;
  const auto other = [&] { return valley.pass(); };
  GSAM<SGD> gsam(valley.groups(), SGDOptions(0.1));
  StableSAM<SGD> stable(valley.groups(), SGDOptions(0.1));
  AESAM<SGD> adaptive(valley.groups(), SGDOptions(0.1));
  for (const std::string& message : {message_of([&] { gsam.ascend_on(other); }), message_of([&] { stable.ascend_on(other); }),
                                     message_of([&] { adaptive.ascend_on(other); })})
    EXPECT_NE(message.find("use it with methods that perturb along it alone"), std::string::npos);
}

TEST(AscendOn, ABatchThatLeadsNowhereMakesAPlainStepOverTheOwnOne) {
  Valley valley;
  SAM<SGD> sam(valley.groups(), SGDOptions(0.0), kRoot5);
  sam.options(1).rho(0.0);
  sam.ascend_on([&] {
    at::Tensor loss = 100 * valley.y.sum();  // nothing of group 0
    loss.backward();
    return loss;
  });
  valley.step(sam);
  EXPECT_FALSE(sam.report().perturbed);
  valley.expect_gradient(1, 2);
}

// As without the method: the base sees the infinite component and the finite ones.
template <class Optimizer>
void expect_no_spreading(const std::string& name, int steps = 1) {
  const at::Tensor x = torch::ones({1}, at::kDouble).requires_grad_(), y = torch::ones({1}, at::kDouble).requires_grad_();
  Optimizer optimizer({x, y}, SGDOptions(0.0));
  for (int i = 0; i < steps; ++i) {
    const bool last = i + 1 == steps;
    optimizer.before_descent([&](std::vector<at::Tensor>& gradients) {
      if (!last) return;
      EXPECT_TRUE(std::isinf(gradients[0].item<double>())) << name;
      EXPECT_EQ(gradients[1].item<double>(), 1.0) << name;
      gradients[0] = torch::zeros_like(gradients[0]);
    });
    optimizer.step([&] {
      at::Tensor loss = x.sum() * (last ? std::numeric_limits<double>::infinity() : 1.0) + y.sum();
      loss.backward();
      return loss;
    });
  }
}

TEST(OverAllGroups, OneInfiniteComponentStaysWhereItIs) {
  expect_no_spreading<SAM<SGD>>("SAM");
  expect_no_spreading<GSAM<SGD>>("GSAM");
  expect_no_spreading<StableSAM<SGD>>("StableSAM");
  expect_no_spreading<XSAM<SGD>>("XSAM");
  expect_no_spreading<LookSAM<SGD>>("LookSAM", 2);
}

TEST(Extrapolated, SettingsOfGroupsAreAskedOrRefused) {
  Valley valley;
  XSAM<SGD> sam({OptimizerParamGroup(std::vector<at::Tensor>{valley.x})}, SGDOptions(0.0));
  EXPECT_EQ(sam.options(0).rho(), 0.15);
  sam.add_param_group(OptimizerParamGroup(std::vector<at::Tensor>{valley.y}), Options());
  EXPECT_EQ(sam.options(1).rho(), 0.15);
  sam.descent(1).rho_max(30);
  EXPECT_NE(message_of([&] { valley.step(sam); }).find("differ in settings that belong to the whole step"), std::string::npos);
  sam.descent(1).rho_max(0.3);
  sam.options(0).p(3);
  sam.options(1).p(3);
  EXPECT_NE(message_of([&] { valley.step(sam); }).find("for p = 2 only; got p = 3"), std::string::npos);
  for (const size_t k : {size_t{0}, size_t{1}}) sam.options(k).p(2);
  EXPECT_NE(message_of([&] {
              sam.step([&] {
                valley.pass();
                return at::Tensor();
              });
            }).find("let it return the loss"),
            std::string::npos);
}

TEST(Extrapolated, WhatIsNotPerturbedDescendsAlongTheSecondGradient) {
  Valley valley;
  XSAM<SGD> sam(valley.groups(), SGDOptions(0.0), Options().rho(1.0));
  sam.options(1).rho(0.0);
  std::vector<double> at_y;
  sam.step(
      [&] {
        at_y.push_back(valley.y.item<double>());
        return valley.pass();
      },
      [&] {
        at_y.push_back(valley.y.item<double>());
        return valley.loss();
      });
  EXPECT_EQ(at_y, std::vector<double>(23, 1.0));
  valley.expect_gradient(1 + 1 / std::sqrt(5.0), 2);  // of x: both gradients have one direction, and the length of g+
}

/// A base without a learning rate.
struct NoRateOptions : public torch::optim::OptimizerCloneableOptions<NoRateOptions> {};
class NoRate : public torch::optim::Optimizer {
 public:
  NoRate(std::vector<OptimizerParamGroup> groups, NoRateOptions options)
      : Optimizer(std::move(groups), std::make_unique<NoRateOptions>(options)) {}
  at::Tensor step(LossClosure closure = nullptr) override {
    const at::AutoGradMode with_grad(true);
    at::Tensor loss = closure ? closure() : at::Tensor();
    const at::NoGradGuard no_grad;
    for (auto& group : param_groups())
      for (at::Tensor& param : group.params()) param.sub_(0.1 * param.grad());
    return loss;
  }
};

TEST(Weighted, ABaseWithoutALearningRateIsAnErrorBeforeTheStep) {
  Valley valley;
  WSAM<NoRate> decoupled(valley.groups(), NoRateOptions(), kRoot5);
  EXPECT_ANY_THROW(valley.step(decoupled));
  EXPECT_EQ(valley.passes, 0);
  valley.expect_at(1, 1);
  WSAM<NoRate> coupled(valley.groups(), NoRateOptions(), kRoot5, {}, descent::Weighted().gamma(0.75).decoupled(false));
  valley.step(coupled);
  valley.expect_at(1 - 0.4, 1 - 1.4);
}

TEST(Weighted, AGradientOfOnePassOnlyCountsAsZeroInTheOther) {
  for (const bool decoupled : {false, true}) {
    Valley valley;
    WSAM<SGD> wsam(valley.groups(), SGDOptions(0.1), Options().rho(1.0), {},
                   descent::Weighted().gamma(0.75).decoupled(decoupled));
    wsam.step([&] {
      at::Tensor loss = ++valley.passes == 1 ? valley.x.sum() : valley.y.sum();
      loss.backward();
      return loss;
    });
    valley.expect_at(1 - 0.1 * (1 + 3 * (0 - 1)), 1 - 0.1 * (0 + 3 * (1 - 0)));
  }
}

TEST(OverAllGroups, AnOptimizerMayMoveBetweenAscendAndDescend) {
  Valley valley;
  GSAM<SGD> first(valley.groups(), SGDOptions(0.0), kRoot5);
  valley.pass();
  ASSERT_TRUE(first.ascend());
  GSAM<SGD> second(std::move(first));
  valley.pass();
  second.descend();
  valley.expect_gradient(2 - 0.4 * 0.3, 6 + 0.4 * 0.1);
}

TEST(Reuse, TheBasesOwnCheckpointBringsNoCorrectionOfOtherSteps) {
  Valley valley;
  LookSAM<SGD> sam(valley.groups(), SGDOptions(0.0), kRoot5);
  valley.step(sam);
  std::stringstream file;
  torch::save(SGD(valley.groups(), SGDOptions(0.0)), file);
  torch::load(sam, file);
  valley.step(sam);
  valley.expect_gradient(1, 2);
}

}  // namespace
}  // namespace steppe
