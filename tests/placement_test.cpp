// Where perturbed weights live: chosen tensor by tensor, never in memory that other code uses.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "errors.hpp"
#include "parameter.hpp"

namespace steppe {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

/// The closure of sum(w^3) that notes the addresses and values of pass 2.
struct Passes {
  explicit Passes(at::Tensor w) : param(std::move(w)), before(param.detach().clone()), address(param.data_ptr()) {}

  TwoPass::Closure closure() {
    return [this] {
      if (++count % 2 == 0) {
        moved = !param.equal(before);
        elsewhere = param.data_ptr() != address;
      }
      at::Tensor loss = param.pow(3).sum();
      loss.backward();
      return loss;
    };
  }
  void expect_moved_and_back() const {
    EXPECT_TRUE(moved);
    EXPECT_TRUE(param.equal(before));
    EXPECT_EQ(param.data_ptr(), address);
  }

  at::Tensor param, before;
  void* address;
  int count = 0;
  bool moved = false, elsewhere = false;
};

SAM<SGD> sam_over(const std::vector<at::Tensor>& params, Placement placement = Placement::Auto) {
  return SAM<SGD>(params, SGDOptions(0.0), Options().rho(0.5).placement(placement));
}

TEST(Placement, IsTheGradientsMemoryWhereNobodyElseHoldsIt) {
  for (const bool fused : {true, false}) {
    Passes passes(parameter(torch::rand({100, 100}) + 1));
    SAM<SGD> sam(std::vector<at::Tensor>{passes.param}, SGDOptions(0.0), Options().rho(0.5).fused(fused));
    for (int step = 0; step < 3; ++step) sam.step(passes.closure());
    EXPECT_EQ(sam.placement(passes.param), Placement::Gradient);
    EXPECT_TRUE(passes.elsewhere);
    EXPECT_LT(sam.memory_bytes(), 10000);
    passes.expect_moved_and_back();
  }
}

TEST(Placement, AGradientThatAHookKeepsIsNeverOverwritten) {
  Passes passes(parameter(torch::rand({50}) + 1));
  SAM<SGD> sam = sam_over({passes.param});
  at::Tensor held, value;
  sam.after_pass_one([&](std::vector<at::Tensor>& gradients) {
    held = gradients[0];
    value = held.clone();
  });
  sam.step(passes.closure());
  EXPECT_EQ(sam.placement(passes.param), Placement::Buffer);
  EXPECT_TRUE(held.equal(value));
  passes.expect_moved_and_back();
}

TEST(Placement, AGradientWhoseMemoryIsSharedIsNeverOverwritten) {
  Passes passes(parameter(torch::rand({50}) + 1));
  SAM<SGD> sam = sam_over({passes.param});
  const at::Tensor bucket = torch::zeros({80});
  sam.after_pass_one([&](std::vector<at::Tensor>& gradients) {
    bucket.slice(0, 10, 60).copy_(gradients[0]);
    gradients[0] = bucket.slice(0, 10, 60);
  });
  sam.step(passes.closure());
  EXPECT_EQ(sam.placement(passes.param), Placement::Buffer);
  EXPECT_TRUE(at::allclose(bucket.slice(0, 10, 60), passes.before.square() * 3));
}

TEST(Placement, AGradientInForeignMemoryIsNeverOverwritten) {
  Passes passes(parameter(torch::rand({4}) + 1));
  SAM<SGD> sam = sam_over({passes.param});
  std::vector<float> foreign = {1.0f, 2.0f, 3.0f, 4.0f};
  sam.after_pass_one([&](std::vector<at::Tensor>& gradients) { gradients[0] = torch::from_blob(foreign.data(), {4}); });
  sam.step(passes.closure());
  EXPECT_EQ(foreign, (std::vector<float>{1.0f, 2.0f, 3.0f, 4.0f}));
  passes.expect_moved_and_back();
}

TEST(Placement, IsInPlaceWhereAParameterSharesItsMemory) {
  const at::Tensor flat = torch::rand({60}) + 1;
  Passes passes(parameter(flat.slice(0, 10, 50)));
  SAM<SGD> sam = sam_over({passes.param});
  sam.step(passes.closure());
  EXPECT_EQ(sam.placement(passes.param), Placement::InPlace);
  EXPECT_FALSE(passes.elsewhere);
  passes.expect_moved_and_back();
}

TEST(Placement, IsABufferForAGradientOfAnotherLayout) {
  Passes passes(parameter(torch::rand({6, 8}) + 1));
  SAM<SGD> sam = sam_over({passes.param});
  sam.after_pass_one([](std::vector<at::Tensor>& gradients) { gradients[0] = gradients[0].t().contiguous().t(); });
  sam.step(passes.closure());
  EXPECT_EQ(sam.placement(passes.param), Placement::Buffer);
  passes.expect_moved_and_back();
}

struct Mixed {
  static constexpr bool needs_first_gradient = true;
  void operator()(std::vector<at::Tensor>& final, const std::vector<at::Tensor>& first) const {
    for (size_t i = 0; i < final.size(); ++i) final[i] = first[i];
  }
};

TEST(Placement, IsABufferWhereTheDescentNeedsTheFirstGradient) {
  Passes passes(parameter(torch::full({3}, 2.0)));
  SharpnessAware<SGD, ascent::Gradient, Mixed> mixed(std::vector<at::Tensor>{passes.param}, SGDOptions(0.0),
                                                     Options().rho(0.5));
  at::Tensor final;
  mixed.before_descent([&](std::vector<at::Tensor>& gradients) { final = gradients[0].clone(); });
  mixed.step(passes.closure());
  EXPECT_EQ(mixed.placement(passes.param), Placement::Buffer);
  EXPECT_TRUE(final.equal(torch::full({3}, 12.0)));
}

TEST(Placement, IsABufferInTwoPhaseUseSoThatCancelCanGiveTheGradientsBack) {
  Passes passes(parameter(torch::rand({7}) + 1));
  SAM<SGD> sam = sam_over({passes.param});
  passes.closure()();
  const at::Tensor gradient = passes.param.grad().clone();
  ASSERT_TRUE(sam.ascend());
  EXPECT_EQ(sam.placement(passes.param), Placement::Buffer);
  EXPECT_FALSE(passes.param.equal(passes.before));
  EXPECT_NE(message_of([&] { sam.release_memory(); }).find("between ascend() and descend()"), std::string::npos);
  sam.cancel();
  EXPECT_TRUE(passes.param.grad().equal(gradient));
  EXPECT_TRUE(passes.param.equal(passes.before));
}

TEST(Placement, CanBeForced) {
  for (const Placement wish : {Placement::Gradient, Placement::Buffer, Placement::InPlace}) {
    Passes passes(parameter(torch::rand({1000}) + 1));
    SAM<SGD> sam = sam_over({passes.param}, wish);
    sam.step(passes.closure());
    EXPECT_EQ(sam.placement(passes.param), wish);
    EXPECT_EQ(passes.elsewhere, wish != Placement::InPlace);
    EXPECT_EQ(sam.memory_bytes() >= 4000, wish != Placement::Gradient);
    passes.expect_moved_and_back();
    sam.release_memory();
    EXPECT_EQ(sam.memory_bytes(), 0);
    sam.step(passes.closure());
    passes.expect_moved_and_back();
  }
}

TEST(Placement, FollowsAParameterWhoseMemoryChanges) {
  Passes passes(parameter(torch::rand({20}) + 1));
  SAM<SGD> sam = sam_over({passes.param}, Placement::Buffer);
  sam.step(passes.closure());
  passes.param.set_data(torch::rand({20}) + 3);
  passes.before = passes.param.detach().clone();
  passes.address = passes.param.data_ptr();
  sam.step(passes.closure());
  passes.expect_moved_and_back();
}

TEST(Placement, AGraphOverTheOldWeightsIsAnErrorInPassTwo) {
  for (const Placement placement : {Placement::Gradient, Placement::Buffer, Placement::InPlace}) {
    const at::Tensor w = parameter(torch::rand({5}) + 1);
    SAM<SGD> sam = sam_over({w}, placement);
    at::Tensor kept;
    int pass = 0;
    const auto closure = [&] {
      if (++pass == 1) kept = w.pow(3).sum();
      if (pass == 2) kept.backward();  // its saved weights have changed
      at::Tensor loss = w.pow(2).sum();
      loss.backward();
      return loss;
    };
    EXPECT_NE(message_of([&] { sam.step(closure); }).find("modified by an inplace operation"), std::string::npos)
        << static_cast<int64_t>(placement);
  }
}

TEST(Placement, StridesOfSingleDimensionsDoNotMatter) {
  const at::Tensor w = parameter(torch::rand({6, 4, 1, 1}));
  AscentGroup group;
  group.params = {w};
  group.gradients = {torch::empty({0}).set_(torch::rand({24}).storage(), 0, {6, 4, 1, 1}, {4, 1, 4, 4})};
  group.spare = {true};
  group.rho = 0.5;
  const auto memory = std::make_shared<PerturbationMemory>();
  const at::Tensor expected = w.detach() + group.gradients[0] * (0.5 / group.gradients[0].norm());
  const Perturbation at({group}, memory);
  EXPECT_EQ(memory->placement(w), Placement::Gradient);
  EXPECT_TRUE(at::allclose(w, expected));
}

TEST(Placement, AParameterGoesToAndFromAnyPlaceInItsStorage) {
  // The only handle to a storage that is larger than the parameter, and the same of a gradient.
  const auto inside = [](double value) {
    const at::Tensor larger = torch::full({10}, value, at::kDouble);
    return torch::empty({0}, at::kDouble).set_(larger.storage(), 3, {4}, {1});
  };
  const at::Tensor w = inside(2.0).requires_grad_(), before = w.detach().clone();
  const int64_t offset = w.storage_offset();
  ASSERT_EQ(offset, 3);
  AscentGroup group;
  group.params = {w};
  group.gradients = {inside(1.0)};
  group.spare = {true};
  group.rho = 1.0;
  const auto memory = std::make_shared<PerturbationMemory>();
  {
    const Perturbation at({group}, memory);
    EXPECT_EQ(memory->placement(w), Placement::Gradient);
    EXPECT_EQ(w.data_ptr(), group.gradients[0].data_ptr());
    EXPECT_TRUE(w.eq(2.5).all().item<bool>());
  }
  EXPECT_EQ(w.storage_offset(), offset);
  EXPECT_TRUE(w.equal(before));
  group.gradients = {torch::ones({4}, at::kDouble)};
  {
    const Perturbation at({group}, memory);
    EXPECT_EQ(w.storage_offset(), 0);
    EXPECT_TRUE(w.eq(2.5).all().item<bool>());
  }
  EXPECT_EQ(w.storage_offset(), offset);
  EXPECT_TRUE(w.equal(before));
}

TEST(Placement, PassTwoSeesTheMovedWeightsInEveryWayOfHoldingThem) {
  const at::Tensor w = parameter(torch::full({4}, 2.0));
  const at::Tensor same = w;
  SAM<SGD> sam = sam_over({w});
  int pass = 0;
  sam.step([&] {
    if (++pass == 2) {
      EXPECT_TRUE(at::allclose(same, torch::full({4}, 2.25)));
    }
    at::Tensor loss = same.pow(2).sum();
    loss.backward();
    return loss;
  });
}

TEST(Placement, InPlaceAnotherThreadMayEvaluateTheModelAllAlong) {
  torch::nn::Sequential model(torch::nn::Linear(64, 256), torch::nn::ReLU(), torch::nn::Linear(256, 8));
  const at::Tensor x = torch::randn({16, 64});
  SAM<SGD> sam(model, SGDOptions(0.01), Options().placement(Placement::InPlace));
  const void* const address = model->parameters()[0].data_ptr();
  std::atomic<bool> stops = false;
  std::atomic<int> evaluations = 0;
  std::atomic<bool> finite = true;
  std::thread reader([&] {
    const c10::NoGradGuard no_grad;
    for (; !stops; ++evaluations)
      if (!model->forward(x).isfinite().all().item<bool>()) finite = false;
  });
  for (int step = 0; step < 100 || evaluations < 10; ++step)
    sam.step([&] {
      EXPECT_EQ(model->parameters()[0].data_ptr(), address);
      const at::Tensor loss = model->forward(x).square().mean();
      loss.backward();
      return loss;
    });
  stops = true;
  reader.join();
  EXPECT_TRUE(finite);
}

TEST(Placement, TwoThreadsCannotPerturbTheSameWeightsAtOnce) {
  const at::Tensor w = parameter(torch::ones({3})), alias = w.detach().requires_grad_(),
                   other = parameter(torch::ones({3}));
  const auto pass = [](const at::Tensor& x) {
    const at::Tensor loss = x.pow(3).sum();
    loss.backward();
    return loss;
  };
  const auto says_elsewhere = [&](const at::Tensor& x) {
    std::string message;
    std::thread([&] { message = message_of([&] { sam_over({x}).step([&] { return pass(x); }); }); }).join();
    return message;
  };
  SAM<SGD> sam = sam_over({w});
  pass(w);
  ASSERT_TRUE(sam.ascend());
  const at::Tensor moved = w.detach().clone();
  EXPECT_NE(says_elsewhere(w).find("of shape [3] is perturbed by another thread"), std::string::npos);
  EXPECT_NE(says_elsewhere(alias).find("of shape [3] is perturbed by another thread"), std::string::npos);
  EXPECT_EQ(says_elsewhere(other), "");
  EXPECT_TRUE(w.equal(moved));
  sam.cancel();
  EXPECT_EQ(says_elsewhere(w), "");
  EXPECT_TRUE(w.equal(torch::ones({3})));
}

// The one that is refused has not begun: it has no copy of the weights to restore over the other's.
TEST(Placement, AThreadThatIsRefusedLeavesTheWeightsToTheOther) {
  const at::Tensor w = parameter(torch::ones({3}));
  AscentGroup group;
  group.params = {w};
  group.gradients = {torch::ones({3})};
  group.rho = 0.5;
  group.placement = Placement::InPlace;
  AscentGroup late = group;  // by its link, the weights of the first group have been checked
  late.params = {parameter(torch::ones({2}))};
  late.gradients = {torch::ones({2})};
  late.direction.links.emplace_back([&](std::vector<at::Tensor>&, const std::vector<at::Tensor>&) {
    std::thread([&] { EXPECT_NE(message_of([&] { const Perturbation theirs({group}); }), ""); }).join();
  });
  {
    const Perturbation ours({group, late});
    EXPECT_FALSE(w.equal(torch::ones({3})));
  }
  EXPECT_TRUE(w.equal(torch::ones({3})));
}

}  // namespace
}  // namespace steppe
