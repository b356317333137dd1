// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>

namespace steppe::step {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

/// The three ways to make a step.
enum class Way { Closure, TwoPhase, PlainLoop };
constexpr Way kWays[] = {Way::Closure, Way::TwoPhase, Way::PlainLoop};

template <class Optimizer>
void step(Optimizer& optimizer, Way way, const std::function<at::Tensor()>& pass) {
  switch (way) {
    case Way::Closure:
      optimizer.step(pass);
      break;
    case Way::TwoPhase:
      pass();
      if (optimizer.ascend()) pass();
      optimizer.descend();
      break;
    case Way::PlainLoop:
      pass();
      optimizer.step();
      break;
  }
}

/// f(w) = sum w^4 / 4, whose gradient is w^3.
at::Tensor quartic(const at::Tensor& w) { return w.pow(4).sum() / 4; }

struct Difference {
  static constexpr bool needs_first_gradient = true;
  void operator()(std::vector<at::Tensor>& final_gradients, const std::vector<at::Tensor>& first) const {
    for (size_t i = 0; i < final_gradients.size(); ++i) final_gradients[i] = final_gradients[i] - first[i];
  }
  template <class Fields>
  void fields(Fields&) {}
};

/// Two parameters whose gradients are views of one buffer, as a program has them that reduces it over its processes.
struct Flat {
  at::Tensor a = torch::full({2, 3}, 1.0).requires_grad_(), b = torch::full({4}, 2.0).requires_grad_();
  at::Tensor buffer = torch::zeros({10});
  std::vector<at::Tensor> reduced;  ///< the buffer after each pass

  Flat() {
    a.mutable_grad() = buffer.slice(0, 0, 6).view({2, 3});
    b.mutable_grad() = buffer.slice(0, 6);
  }
  std::function<at::Tensor()> pass() {
    return [this] {
      const at::Tensor loss = quartic(a) + quartic(b);
      loss.backward();
      reduced.push_back(buffer.clone());
      return loss;
    };
  }
  at::Tensor gradient() const { return torch::cat({a.detach().pow(3).flatten(), b.detach().pow(3)}); }
};

TEST(ProgramsGradients, ViewsOfOneBufferStayItsViewsAndHoldWhatWasComputed) {
  for (const Way way : kWays) {
    Flat net;
    SAM<SGD> sam({net.a, net.b}, SGDOptions(0.0), Options().rho(0.5));
    for (int i = 0; i < 3; ++i) {
      if (way != Way::Closure) net.buffer.zero_();
      step(sam, way, net.pass());
      EXPECT_TRUE(net.reduced[0].equal(net.gradient()));
      EXPECT_EQ(net.b.grad().data_ptr(), net.buffer.slice(0, 6).data_ptr());
      EXPECT_TRUE(net.buffer.gt(net.gradient()).all().item<bool>());  // those at w + e, not their sum with the first
      EXPECT_TRUE(net.buffer.lt(2 * net.gradient()).all().item<bool>());
      EXPECT_TRUE(net.buffer.equal(net.reduced.back()) || way == Way::PlainLoop);
      net.reduced.clear();
    }
  }
}

TEST(ProgramsGradients, ATensorThatTheProgramHoldsFromStepToStepIsWrittenInPlace) {
  for (const Way way : kWays) {
    const at::Tensor w = torch::full({5}, 2.0).requires_grad_();
    const at::Tensor held = torch::zeros({5});
    w.mutable_grad() = held;
    SAM<SGD> sam({w}, SGDOptions(0.0), Options().rho(0.5));
    for (int i = 0; i < 2; ++i) {
      if (way != Way::Closure) held.zero_();
      step(sam, way, [&] {
        const at::Tensor loss = quartic(w);
        loss.backward();
        EXPECT_TRUE(w.grad().is_same(held));
        return loss;
      });
      EXPECT_TRUE(w.grad().is_same(held));
      EXPECT_TRUE(held.allclose((w.detach() + 0.5 / std::sqrt(5.0)).pow(3)));
    }
  }
}

/// Gradient descent along the mean of its first and its latest gradient, the first one kept as it is.
class WithTheFirst : public SGD {
 public:
  using SGD::SGD;
  at::Tensor step(LossClosure closure = nullptr) override {
    at::Tensor loss;
    if (closure) {
      const at::AutoGradMode with_grad(true);
      loss = closure();
    }
    const at::NoGradGuard no_grad;
    for (at::Tensor& param : param_groups()[0].params()) {
      if (!first_.defined()) first_ = param.grad();
      param.sub_(0.1 * (first_ + param.grad()) / 2);
    }
    return loss;
  }

 private:
  at::Tensor first_;
};

TEST(ProgramsGradients, OneThatABaseKeepsFromAnEarlierStepLivesOn) {
  for (const Way way : kWays) {
    const at::Tensor ours = torch::full({3}, 1.0).requires_grad_(), plain = torch::full({3}, 1.0).requires_grad_();
    SAM<WithTheFirst> sam({ours}, SGDOptions(0.1), Options().rho(0.0));
    WithTheFirst base({plain}, SGDOptions(0.1));
    for (int i = 0; i < 3; ++i) {
      sam.zero_grad();
      step(sam, way, [&] {
        const at::Tensor loss = quartic(ours);
        loss.backward();
        return loss;
      });
      base.zero_grad();
      quartic(plain).backward();
      base.step();
    }
    // LibTorch 1.13 zeroes gradients in place, even if other code keeps them.
    EXPECT_TRUE(TORCH_VERSION_MAJOR < 2 || ours.equal(plain)) << static_cast<int>(way);
  }
}

TEST(ProgramsGradients, OneThatIsZeroInPassTwoIsASecondGradientAllTheSame) {
  for (const Way way : kWays) {
    Flat net;
    SAM<SGD> sam({net.a, net.b}, SGDOptions(0.1), Options().rho(0.5));
    int passes = 0;
    step(sam, way, [&] {
      const at::Tensor loss = (quartic(net.a) + quartic(net.b)) * (way != Way::PlainLoop && ++passes == 2 ? 0.0 : 1.0);
      loss.backward();
      return loss;
    });
    EXPECT_TRUE(way == Way::PlainLoop || net.a.equal(torch::full({2, 3}, 1.0))) << static_cast<int>(way);
  }
}

TEST(ProgramsGradients, ADescentSeesTheFirstGradientThoughPassTwoWritesToItsMemory) {
  for (const Way way : kWays) {
    Flat net;
    SharpnessAware<SGD, ascent::Gradient, Difference> sam({net.a, net.b}, SGDOptions(0.0), Options().rho(0.5));
    if (way != Way::Closure) net.buffer.zero_();
    step(sam, way, net.pass());
    const double norm = net.gradient().norm().item<double>();
    const at::Tensor expected = (net.b.detach() + 0.5 * net.b.detach().pow(3) / norm).pow(3) - net.b.detach().pow(3);
    EXPECT_TRUE(net.buffer.slice(0, 6).allclose(expected));
  }
}

TEST(ProgramsGradients, CancelPutsBackTheFirstOnesWhereTheyWere) {
  Flat net;
  SAM<SGD> sam({net.a, net.b}, SGDOptions(0.0), Options().rho(0.5));
  net.pass()();
  ASSERT_TRUE(sam.ascend());
  net.pass()();
  sam.cancel();
  EXPECT_TRUE(net.buffer.equal(net.gradient()));
  EXPECT_EQ(net.b.grad().data_ptr(), net.buffer.slice(0, 6).data_ptr());
}

TEST(ProgramsGradients, AStepThatIsLeftOutDescendsAlongTheFirstGradient) {
  Flat net;
  SAM<SGD> sam({net.a, net.b}, SGDOptions(0.5), Options().rho(0.5));
  sam.every(2).from_step(1);
  const at::Tensor before = net.b.detach().clone();
  net.pass()();
  EXPECT_FALSE(sam.ascend());
  sam.descend();
  EXPECT_TRUE(net.b.allclose(before - 0.5 * before.pow(3)));
}

TEST(ProgramsGradients, OneThatAHookKeepsLivesOn) {
  const at::Tensor w = torch::full({5}, 2.0).requires_grad_();
  SAM<SGD> sam({w}, SGDOptions(0.0), Options().rho(0.5));
  std::vector<at::Tensor> kept, aliases;
  sam.after_pass_one([&](std::vector<at::Tensor>& gradients) {
    kept.push_back(gradients[0]);
    aliases.push_back(gradients[0].detach());
  });
  for (int i = 0; i < 2; ++i)
    sam.step([&] {
      const at::Tensor loss = quartic(w);
      loss.backward();
      return loss;
    });
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(kept[i].equal(torch::full({5}, 8.0)));
    EXPECT_TRUE(aliases[i].equal(torch::full({5}, 8.0)));
  }
}

/// A backbone and a head that have an optimizer each.
struct TwoParts {
  torch::nn::Linear backbone{4, 4}, head{4, 2};
  torch::nn::Sequential all{backbone, head};
  at::Tensor x = torch::randn({8, 4});
  at::Tensor loss() { return all->forward(x).square().mean(); }
  std::vector<at::Tensor> gradients_of_head() {
    return torch::autograd::grad({loss()}, head->parameters());
  }
};

TEST(OthersGradients, AnotherOptimizerOfTheModelGetsTheGradientsThatItHadWithoutASecondPass) {
  for (const Way way : kWays)
    for (const bool held : {false, true}) {
      TwoParts net;
      SAM<SGD> sam(net.backbone->parameters(), SGDOptions(0.0), Options().rho(0.5));
      sam.attach(net.all);
      SGD other(net.head->parameters(), SGDOptions(0.1));
      const std::vector<at::Tensor> expected = net.gradients_of_head();
      const at::Tensor buffer = torch::zeros({2, 4});
      if (held) net.head->weight.mutable_grad() = buffer;
      if (way != Way::Closure) sam.zero_grad();
      step(sam, way, [&] {
        const at::Tensor loss = net.loss();
        loss.backward();
        return loss;
      });
      EXPECT_TRUE(net.head->weight.grad().equal(expected[0]));
      EXPECT_TRUE(net.head->bias.grad().equal(expected[1]));
      EXPECT_EQ(net.head->weight.grad().is_same(buffer), held);
      other.step();
    }
}

}  // namespace
}  // namespace steppe::step
