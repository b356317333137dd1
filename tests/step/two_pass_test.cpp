// SPDX-License-Identifier: MIT
#include <c10/util/Exception.h>
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <steppe/step/two_pass.hpp>
#include <torch/optim/sgd.h>
#include <torch/version.h>

#include <string>
#include <vector>

namespace steppe {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

TEST(TwoPass, ServesAnOptimizerThatAlreadyExists) {
  torch::manual_seed(1);
  const at::Tensor w = torch::randn({4, 3}, at::kDouble).requires_grad_();
  const at::Tensor v = w.detach().clone().requires_grad_();
  const auto closure_of = [](const at::Tensor& x) {
    return [x] {
      at::Tensor loss = (x.square() * torch::arange(12, at::kDouble).view({4, 3})).sum().sqrt();
      loss.backward();
      return loss;
    };
  };
  SGD existing(std::vector<at::Tensor>{w}, SGDOptions(0.1).momentum(0.9));
  ZSharp<SGD> ours(std::vector<at::Tensor>{v}, SGDOptions(0.1).momentum(0.9), Options().rho(0.2),
                   ascent::ZScoreFilter().percentile(0.5));
  TwoPass two_pass;
  ascent::ZScoreFilter filter = ascent::ZScoreFilter().percentile(0.5);
  StepPlan plan;
  plan.groups.resize(1);
  plan.groups[0].params = {w};
  plan.groups[0].direction = direction_of(filter);
  plan.groups[0].rho = 0.2;
  for (int i = 0; i < 5; ++i) {
    existing.step([&] { return two_pass.evaluate(closure_of(w), plan); });
    ours.step(closure_of(v));
  }
  EXPECT_TRUE(w.equal(v));
}

TEST(TwoPass, AFreeStandingPerturbationDoesTheSameByHand) {
  const at::Tensor w = torch::tensor({1.0, -2.0, 3.0}, at::kDouble).requires_grad_();
  const at::Tensor v = w.detach().clone().requires_grad_();
  SGD existing(std::vector<at::Tensor>{w}, SGDOptions(0.1));
  SAM<SGD> ours(std::vector<at::Tensor>{v}, SGDOptions(0.1), Options().rho(0.5));
  for (int i = 0; i < 3; ++i) {
    existing.zero_grad();
    w.pow(4).sum().backward();
    {
      const Perturbation at({w}, {w.grad().clone()}, 0.5);
      existing.zero_grad();
      w.pow(4).sum().backward();
    }
    existing.step();
    ours.step([&] {
      at::Tensor loss = v.pow(4).sum();
      loss.backward();
      return loss;
    });
  }
  EXPECT_TRUE(w.equal(v));
}

/// Keeps g and g+ as they came.
struct Both {
  static constexpr bool needs_first_gradient = true;
  void operator()(std::vector<at::Tensor>& final, const std::vector<at::Tensor>& first) const {
    for (size_t i = 0; i < final.size(); ++i) final[i] = 0.5 * final[i] + 0.5 * first[i];
  }
};

TEST(TwoPass, ADescentMayMixBothGradients) {
  const at::Tensor w = torch::tensor({3.0}, at::kDouble).requires_grad_();
  SharpnessAware<SGD, ascent::Gradient, Both> mixed(std::vector<at::Tensor>{w}, SGDOptions(1.0), Options().rho(0.5));
  mixed.step([&] {
    at::Tensor loss = w.square().sum();
    loss.backward();
    return loss;
  });
  EXPECT_DOUBLE_EQ(w.item<double>(), 3.0 - (0.5 * 6.0 + 0.5 * 7.0));  // g = 6 at 3, g+ = 7 at 3.5
}

#if TORCH_VERSION_MAJOR >= 2  // before, handlers have another interface
struct Warnings : c10::WarningHandler {
  void process(const c10::Warning& warning) override { said += warning.msg(); }
  std::string said;
};

TEST(TwoPass, WarnsOfAClosureThatForgetsBackward) {
  const at::Tensor w = torch::ones({2}).requires_grad_();
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.1));
  Warnings warnings;
  const c10::WarningUtils::WarningHandlerGuard guard(&warnings);
  const c10::WarningUtils::WarnAlways each_time(true);
  sam.step([&] {
    at::Tensor loss = w.square().sum();
    loss.backward();
    return loss;
  });
  EXPECT_EQ(warnings.said, "");
  const at::Tensor before = w.detach().clone();
  sam.step([&] { return w.square().sum(); });
  EXPECT_NE(warnings.said.find("does it call backward()?"), std::string::npos) << warnings.said;
  EXPECT_TRUE(w.equal(before));
}
#endif

}  // namespace
}  // namespace steppe
