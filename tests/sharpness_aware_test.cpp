// What SharpnessAware adds: constructors, groups, schedules, exclusion, hooks, checkpoints.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/schedulers/step_lr.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "errors.hpp"
#include "saved.hpp"

namespace steppe {
namespace {

using torch::optim::OptimizerParamGroup;
using torch::optim::SGD;
using torch::optim::SGDOptions;

at::Tensor vector_of(double value, int64_t size = 3) {
  return torch::full({size}, value, at::kDouble).requires_grad_();
}

/// The closure of a quadratic bowl over the given tensors.
TwoPass::Closure bowl(const std::vector<at::Tensor>& params) {
  return [params] {
    at::Tensor loss = torch::zeros({}, at::kDouble);
    for (const at::Tensor& param : params) loss = loss + param.square().sum();
    loss.backward();
    return loss;
  };
}

TEST(SharpnessAware, ConstructorNamesWhatIsWrong) {
  const at::Tensor w = vector_of(1.0);
  const auto says = [](const std::vector<at::Tensor>& params, const Options& options) {
    return message_of([&] { SAM<SGD>(params, SGDOptions(0.1), options); });
  };
  EXPECT_NE(says({w}, Options().rho(-0.5)).find("rho must be finite and at least 0, got -0.5"), std::string::npos);
  EXPECT_NE(says({w}, Options().rho(std::nan(""))).find("got nan"), std::string::npos);
  EXPECT_NE(says({w}, Options().p(1.0)).find("got 1"), std::string::npos);
  EXPECT_NE(says({}, Options()).find("parameter list is empty"), std::string::npos);
  EXPECT_NE(says({w, w}, Options()).find("parameter 1 of group 0 of shape"), std::string::npos);
  EXPECT_NE(says({w * 2}, Options()).find("not a leaf"), std::string::npos);
  EXPECT_NE(says({at::Tensor()}, Options()).find("undefined"), std::string::npos);
  EXPECT_NE(says({torch::ones({2}, at::kLong)}, Options()).find("floating-point or complex"), std::string::npos);
  EXPECT_NE(message_of([&] {
              ZSharp<SGD>(std::vector<at::Tensor>{w}, SGDOptions(0.1), Options(),
                          ascent::ZScoreFilter().percentile(1.5));
            }).find("percentile must be in [0, 1), got 1.5"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              GCSAM<SGD>(std::vector<at::Tensor>{w}, SGDOptions(0.1), Options().p(3),
                         ascent::Centralize().norm(Norm::Raw));
            }).find("p = 3"),
            std::string::npos);
  const std::vector<OptimizerParamGroup> twice = {OptimizerParamGroup({w}), OptimizerParamGroup({w})};
  EXPECT_NE(message_of([&] {
              SAM<SGD>(twice, SGDOptions(0.1));
            }).find("parameter 0 of group 1 of shape [3] appears twice: it is parameter 0 of group 0 already"),
            std::string::npos);
}

TEST(SharpnessAware, IsMadeFromWhatLibTorchsOptimizersAreMadeFrom) {
  torch::nn::Sequential holder(torch::nn::Linear(2, 2), torch::nn::BatchNorm1d(2));
  const std::shared_ptr<torch::nn::SequentialImpl> pointer = holder.ptr();
  const auto expect_attached = [&](auto&& sam) {
    ASSERT_EQ(sam.param_groups()[0].params().size(), 4u);
    const at::Tensor x = torch::randn({8, 2});
    sam.step([&] {
      const at::Tensor loss = holder->forward(x).pow(4).mean();
      loss.backward();
      return loss;
    });
  };
  expect_attached(SAM<SGD>(*holder, SGDOptions(0.1)));
  expect_attached(SAM<SGD>(holder, 0.1));
  expect_attached(SAM<SGD>(pointer, {0.1}, Options().rho(0.1)));
  expect_attached(SAM<SGD>(std::shared_ptr<torch::nn::Module>(pointer), SGDOptions(0.1)));
  expect_attached(SAM<torch::optim::Adam>(*holder));
  expect_attached(SAM<torch::optim::AdamW>(holder));
  EXPECT_EQ(holder[1]->as<torch::nn::BatchNorm1d>()->num_batches_tracked.item<int64_t>(), 6);  // pass 1 of each
  expect_attached(ZSharp<torch::optim::LBFGS>(pointer));
  SAM<torch::optim::Adam> bare(holder->parameters());
  EXPECT_EQ(bare.options().rho(), 0.05);
  const std::shared_ptr<torch::nn::Module> none;
  EXPECT_NE(message_of([&] { SAM<SGD>(none, SGDOptions(0.1)); }).find("pointer to the model is null"),
            std::string::npos);
}

TEST(SharpnessAware, AGroupMayBeEmptyAsInLibTorch) {
  const at::Tensor w = vector_of(1.0);
  const OptimizerParamGroup none(std::vector<at::Tensor>{}), some({w});
  SAM<SGD> sam(std::vector<OptimizerParamGroup>{none, some}, SGDOptions(0.25));
  sam.add_param_group(none);
  sam.step(bowl({w}));
  EXPECT_LT(w[0].item<double>(), 1.0);
  std::stringstream file;
  torch::save(sam, file);
  torch::load(sam, file);
}

TEST(SharpnessAware, BuffersOfNoModuleAreGuardedInPassTwo) {
  const at::Tensor w = vector_of(1.0), counter = torch::zeros({}, at::kLong);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.0));
  sam.attach({counter});
  const auto counted = [&](const auto& step) {
    step([&] {
      counter.add_(1);
      return bowl({w})();
    });
    return counter.item<int64_t>();
  };
  EXPECT_EQ(counted([&](const auto& pass) { sam.step(pass); }), 1);
  EXPECT_EQ(counted([&](const auto& pass) {
              sam.zero_grad();
              pass();
              if (sam.ascend()) pass();
              sam.descend();
            }),
            2);
}

TEST(SharpnessAware, BatchNormDoesNotSeePassTwoThoughOnlyParametersAreKnown) {
  torch::nn::Sequential net(torch::nn::Linear(2, 2), torch::nn::BatchNorm1d(2));
  const at::Tensor x = torch::randn({8, 2});
  const auto& norm = *net[1]->as<torch::nn::BatchNorm1d>();
  for (const int way : {0, 1, 2}) {
    SAM<SGD> sam(net->parameters(), SGDOptions(0.0), Options().rho(0.5));
    std::vector<at::Tensor> seen;
    const auto pass = [&] {
      const at::Tensor loss = net->forward(x).pow(4).mean();
      loss.backward();
      seen.push_back(norm.running_mean.clone());
      return loss;
    };
    if (way == 0) {
      sam.step(pass);
    } else {
      sam.zero_grad();
      pass();
      if (way == 2 && sam.ascend()) pass();
      way == 2 ? sam.descend() : static_cast<void>(sam.step());
    }
    EXPECT_TRUE(norm.running_mean.equal(seen[0])) << way;
  }
}

/// A net that is trained through another one, as a generator through its discriminator.
TEST(SharpnessAware, BatchNormOfAModuleThatIsNotAttachedDoesNotSeePassTwo) {
  torch::nn::Sequential own(torch::nn::Linear(2, 2), torch::nn::BatchNorm1d(2));
  torch::nn::Sequential other(torch::nn::Linear(2, 2), torch::nn::BatchNorm1d(2));
  const at::Tensor x = torch::randn({8, 2});
  const auto& mean = other[1]->as<torch::nn::BatchNorm1d>()->running_mean;
  const auto& count = other[1]->as<torch::nn::BatchNorm1d>()->num_batches_tracked;
  for (const int way : {0, 1, 2, 3}) {
    const bool attached = way == 3;
    SAM<SGD> sam(*own, SGDOptions(0.0), Options().rho(0.5));
    if (attached) sam.attach(*other);  // beside the first one
    for (int i = 0; i < 3; ++i) {
      std::vector<at::Tensor> seen, counts;
      const auto pass = [&] {
        const at::Tensor loss = other->forward(own->forward(x)).pow(4).mean();
        loss.backward();
        seen.push_back(mean.clone());
        counts.push_back(count.clone());
        return loss;
      };
      if (way == 0 || attached) {
        sam.step(pass);
      } else {
        sam.zero_grad();
        pass();
        if (way == 2 && sam.ascend()) pass();
        way == 2 ? sam.descend() : static_cast<void>(sam.step());
      }
      EXPECT_TRUE(mean.equal(seen[0])) << way << ", step " << i;
      EXPECT_TRUE(!attached || count.equal(counts[0]));
    }
  }
}

TEST(SharpnessAware, EveryMethodHasItsOwnDefaultRho) {
  const std::vector<at::Tensor> w = {vector_of(1.0)};
  EXPECT_EQ(SAM<SGD>(w, SGDOptions(0.1)).options().rho(), 0.05);
  EXPECT_EQ(ZSharp<SGD>(w, SGDOptions(0.1)).options().rho(), 0.05);
  EXPECT_EQ(GCSAM<SGD>(w, SGDOptions(0.1)).options().rho(), 0.05);
  EXPECT_EQ(ASAM<SGD>(w, SGDOptions(0.1)).options().rho(), 0.5);
  EXPECT_EQ(ASAM<SGD>(w, SGDOptions(0.1), {}, ascent::AdaptiveScale::davda54()).options().rho(), 2.0);
  EXPECT_EQ(ASAM<SGD>(w, SGDOptions(0.1), Options().rho(0.3)).options().rho(), 0.3);
}

TEST(SharpnessAware, AModuleGivesParametersBuffersAndGains) {
  torch::manual_seed(1);
  torch::nn::BatchNorm1d bn(4);
  torch::nn::Sequential model(torch::nn::Linear(3, 4), bn);
  ASAM<SGD> with_module(*model, SGDOptions(0.0), Options().rho(0.5));
  const auto closure = [&] {
    at::Tensor loss = model->forward(torch::ones({2, 3}) * torch::arange(2).view({2, 1})).square().sum();
    loss.backward();
    return loss;
  };
  with_module.step(closure);
  EXPECT_EQ(bn->num_batches_tracked.item<int64_t>(), 1);

  ASAM<SGD> without_module(model->parameters(), SGDOptions(0.0), Options().rho(0.5));
  without_module.step(closure);
  EXPECT_EQ(bn->num_batches_tracked.item<int64_t>(), 3);
  without_module.attach(*model);
  without_module.step(closure);
  EXPECT_EQ(bn->num_batches_tracked.item<int64_t>(), 4);
}

TEST(SharpnessAware, NormGainsAreScaledOnceTheModelIsKnown) {
  torch::nn::BatchNorm1d layer(2);
  const auto gains = [&](bool attached) {
    ASAM<SGD> asam(layer->parameters(), SGDOptions(0.0), Options().rho(1.0));
    if (attached) asam.attach(*layer);
    at::Tensor moved;
    int pass = 0;
    asam.step([&] {
      if (++pass == 2) moved = layer->weight.detach().clone();
      at::Tensor loss = (layer->weight * torch::tensor({3.0f, 4.0f})).sum();
      loss.backward();
      return loss;
    });
    return moved;
  };
  // With T = 1 the step is g / |g|; with T = |w| + 0.01 = 1.01 on every component it is 1.01 times that.
  EXPECT_TRUE(at::allclose(gains(false), torch::tensor({1.6f, 1.8f})));
  EXPECT_TRUE(at::allclose(gains(true), torch::tensor({1.606f, 1.808f})));
}

TEST(SharpnessAware, OneGlobalNormAndOneRhoPerGroup) {
  const at::Tensor a = vector_of(3.0, 1), b = vector_of(2.0, 1);
  SAM<SGD> sam(std::vector<OptimizerParamGroup>{OptimizerParamGroup({a}), OptimizerParamGroup({b})}, SGDOptions(0.0));
  sam.options(0).rho(0.1);
  sam.options(1).rho(0.5);
  std::vector<double> seen;
  sam.step([&] {
    seen = {a.item<double>(), b.item<double>()};
    at::Tensor loss = (3 * a + 4 * b).sum();  // |g| = 5
    loss.backward();
    return loss;
  });
  EXPECT_NEAR(seen[0], 3.0 + 0.1 * 0.6, 1e-14);
  EXPECT_NEAR(seen[1], 2.0 + 0.5 * 0.8, 1e-14);
}

TEST(SharpnessAware, AGroupWithRhoZeroCanBeLeftOutOfTheNorm) {
  const at::Tensor a = vector_of(0.0, 1), b = vector_of(0.0, 1);
  SAM<SGD> sam(std::vector<OptimizerParamGroup>{OptimizerParamGroup({a}), OptimizerParamGroup({b})}, SGDOptions(0.0),
               Options().rho(0.5));
  double seen = 0.0;
  const auto closure = [&] {
    seen = a.item<double>();
    at::Tensor loss = (3 * a + 4 * b).sum();
    loss.backward();
    return loss;
  };
  sam.options(1).rho(0.0);
  sam.step(closure);
  EXPECT_NEAR(seen, 0.5 * 0.6, 1e-14);
  sam.options(1).in_norm(false);
  sam.step(closure);
  EXPECT_NEAR(seen, 0.5, 1e-14);
}

TEST(SharpnessAware, ExcludeAndOnlyPickParametersByRule) {
  torch::manual_seed(1);
  torch::nn::Sequential model(torch::nn::Linear(3, 4), torch::nn::BatchNorm1d(4), torch::nn::Linear(4, 2));
  const auto moved_by = [&](auto&& choose) {
    SAM<SGD> sam(*model, SGDOptions(0.0), Options().rho(0.5));
    choose(sam);
    std::vector<at::Tensor> before;
    std::vector<bool> moved;
    double squared = 0.0;
    int pass = 0;
    sam.step([&] {
      ++pass;
      for (size_t i = 0; i < model->parameters().size(); ++i) {
        const at::Tensor now = model->parameters()[i].detach().clone();
        if (pass == 1) before.push_back(now);
        if (pass == 2) moved.push_back(!now.equal(before[i]));
        if (pass == 2) squared += (now - before[i]).square().sum().item<double>();
      }
      at::Tensor loss = (model->forward(torch::randn({8, 3})) - 1).square().sum();
      loss.backward();
      return loss;
    });
    EXPECT_NEAR(squared, 0.25, 1e-5);
    return moved;
  };
  EXPECT_EQ(moved_by([&](auto& sam) { sam.exclude(biases_and_norms(*model)); }),
            (std::vector<bool>{true, false, false, false, true, false}));
  EXPECT_EQ(moved_by([&](auto& sam) { sam.only(norms(*model)); }),
            (std::vector<bool>{false, false, true, true, false, false}));
  SAM<SGD> sam(*model, SGDOptions(0.1));
  EXPECT_NE(message_of([&] { sam.exclude({vector_of(1.0)}); }).find("not a parameter of this optimizer"),
            std::string::npos);
}

TEST(SharpnessAware, OnlyReplacesWhatWasExcludedBeforeAndCoversLaterGroups) {
  const at::Tensor a = vector_of(1.0), b = vector_of(2.0), c = vector_of(3.0);
  SAM<SGD> sam(std::vector<at::Tensor>{a, b}, SGDOptions(0.0));
  std::vector<bool> moved;
  const auto closure = [&] {
    moved = {!a.eq(1.0).all().item<bool>(), !b.eq(2.0).all().item<bool>(), !c.eq(3.0).all().item<bool>()};
    return bowl({a, b, c})();
  };
  sam.only({a}).only({b});
  sam.step(closure);
  EXPECT_EQ(moved, (std::vector<bool>{false, true, false}));
  sam.add_param_group(OptimizerParamGroup({c}));
  sam.step(closure);
  EXPECT_EQ(moved, (std::vector<bool>{false, true, false}));
}

TEST(SharpnessAware, AGroupWithoutARadiusOfItsOwnHasTheMethods) {
  const at::Tensor a = torch::ones({2, 2}).requires_grad_(), b = torch::ones({2, 2}).requires_grad_();
  ASAM<SGD> asam(std::vector<at::Tensor>{a}, SGDOptions(0.1));
  asam.add_param_group(OptimizerParamGroup({b}), Options().in_norm(false));
  EXPECT_EQ(asam.options(1).rho(), 0.5);
  asam.options(0) = Options();
  asam.step(bowl({a.to(at::kDouble), b.to(at::kDouble)}));
  EXPECT_EQ(asam.options(0).rho(), 0.5);
}

TEST(SharpnessAware, AReportThatWasKeptIsNotOverwrittenByLaterSteps) {
  const at::Tensor w = vector_of(2.0, 1);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.25), Options().rho(0.1));
  std::vector<at::Tensor> history;
  for (int i = 0; i < 3; ++i) {
    sam.step(bowl({w}));
    history.push_back(sam.report().gradient_norm.detach());
    history.push_back(sam.report().layer_gradient_norm[0]);
  }
  EXPECT_EQ(history[0].item<double>(), 4.0);
  EXPECT_EQ(history[1].item<double>(), 4.0);
  EXPECT_NE(history[2].item<double>(), history[4].item<double>());
}

TEST(SharpnessAware, TheLossIsTheCleanOneThoughAClosureReusesItsTensor) {
  const at::Tensor w = vector_of(2.0, 1);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.0), Options().rho(1.0));
  const at::Tensor total = torch::zeros({}, at::kDouble);
  const at::Tensor loss = sam.step([&] {
    at::Tensor value = w.square().sum();
    value.backward();
    return total.copy_(value.detach());
  });
  EXPECT_EQ(loss.item<double>(), 4.0);
  EXPECT_EQ(sam.report().sharpness.item<double>(), 5.0);  // 3^2 - 2^2
}

TEST(SharpnessAware, MovesInMidStepWithItsPerturbation) {
  const at::Tensor w = vector_of(1.0);
  auto first = std::make_unique<SAM<SGD>>(std::vector<at::Tensor>{w}, SGDOptions(0.25), Options().rho(0.1));
  bowl({w})();
  ASSERT_TRUE(first->ascend());
  SAM<SGD> second(std::move(*first));
  first.reset();
  bowl({w})();
  second.descend();
  const double expected = 1.0 - 0.25 * 2.0 * (1.0 + 0.1 / std::sqrt(3.0));
  EXPECT_TRUE(at::allclose(w, torch::full({3}, expected, at::kDouble)));
}

TEST(SharpnessAware, CallsInsideTheClosureThatWouldLoseTheWeightsAreErrors) {
  const at::Tensor w = vector_of(1.0);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.0));
  const auto says = [&](const std::function<void()>& call) {
    return message_of([&] {
      sam.step([&] {
        call();
        return bowl({w})();
      });
    });
  };
  std::stringstream file;
  for (const std::function<void()>& call :
       std::vector<std::function<void()>>{[&] { sam.release_memory(); }, [&] { sam.step(bowl({w})); },
                                          [&] { sam.ascend(); }, [&] { torch::save(sam, file); }})
    EXPECT_NE(says(call).find("inside the closure or a hook of step()"), std::string::npos);
  EXPECT_TRUE(w.eq(1.0).all().item<bool>());
  sam.step(bowl({w}));
}

TEST(SharpnessAware, DescendingWithoutASecondPassIsAnError) {
  const at::Tensor w = vector_of(1.0);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.25));
  bowl({w})();
  ASSERT_TRUE(sam.ascend());
  EXPECT_NE(message_of([&] { sam.descend(); }).find("make the second forward and backward pass"), std::string::npos);
  bowl({w})();
  sam.descend();
  EXPECT_LT(w[0].item<double>(), 0.5);
}

TEST(SharpnessAware, AHookThatSpoilsAGradientIsAnError) {
  const at::Tensor w = vector_of(1.0);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(1.0));
  sam.before_descent([](std::vector<at::Tensor>& gradients) { gradients[0] = torch::ones({4}, at::kDouble); });
  EXPECT_NE(message_of([&] { sam.step(bowl({w})); }).find("number 0 does not fit its parameter of shape [3]"),
            std::string::npos);
  EXPECT_TRUE(w.eq(1.0).all().item<bool>());
}

TEST(SharpnessAware, LibTorchsSchedulersMoveTheLearningRate) {
  const at::Tensor w = vector_of(1.0);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(1.0));
  torch::optim::StepLR scheduler(sam, 1, 0.5);
  for (int epoch = 0; epoch < 2; ++epoch) {  // LibTorch's first call changes nothing
    sam.step(bowl({w}));
    scheduler.step();
  }
  EXPECT_EQ(sam.param_groups()[0].options().get_lr(), 0.5);
}

TEST(SharpnessAware, RhoFollowsItsScheduleAndTheLearningRate) {
  const at::Tensor w = vector_of(1.0);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.01));
  const auto radius = [&] {
    sam.step(bowl({w}));
    return sam.report().perturbation_norm.item<double>();
  };
  sam.rho_schedule(schedule::linear(0.1, 0.3, 2));
  EXPECT_NEAR(radius(), 0.1, 1e-12);
  EXPECT_NEAR(radius(), 0.2, 1e-12);
  EXPECT_NEAR(radius(), 0.3, 1e-12);
  EXPECT_NEAR(radius(), 0.3, 1e-12);
  sam.rho_schedule(schedule::proportional_to_lr(0.0, 0.4, 0.0, 0.02));
  EXPECT_NEAR(radius(), 0.2, 1e-12);
  sam.param_groups()[0].options().set_lr(0.02);
  EXPECT_NEAR(radius(), 0.4, 1e-12);
  sam.rho_schedule(schedule::custom([](int64_t) { return -1.0; }));
  EXPECT_NE(message_of(radius).find("gave -1 at step 6"), std::string::npos);
}

TEST(SharpnessAware, HyperParametersMayChangeInMidTraining) {
  const at::Tensor w = torch::randn({4, 5}, at::kDouble).requires_grad_();
  ZSharp<SGD> zsharp(std::vector<at::Tensor>{w}, SGDOptions(0.01));
  zsharp.ascent().percentile(0.5);
  zsharp.step(bowl({w}));
  EXPECT_NEAR(zsharp.report().kept_share.item<double>(), 0.5, 0.01);
  zsharp.ascent().percentile(0.75);
  zsharp.options().rho(0.2);
  zsharp.step(bowl({w}));
  EXPECT_NEAR(zsharp.report().kept_share.item<double>(), 0.25, 0.01);
  EXPECT_NEAR(zsharp.report().perturbation_norm.item<double>(), 0.2, 1e-12);
}

TEST(SharpnessAware, AGroupMayBeAddedWithOptionsOfItsOwn) {
  const at::Tensor a = vector_of(1.0), b = vector_of(2.0), c = vector_of(3.0);
  SAM<SGD> sam(std::vector<at::Tensor>{a}, SGDOptions(0.01), Options().rho(0.2));
  sam.add_param_group(OptimizerParamGroup({b}), Options().rho(0.0));
  sam.add_param_group(OptimizerParamGroup({c}));
  EXPECT_EQ(sam.options(1).rho(), 0.0);
  EXPECT_EQ(sam.options(2).rho(), 0.2);
  EXPECT_NE(message_of([&] { sam.options(3); }).find("no parameter group 3; the optimizer has 3"), std::string::npos);
  EXPECT_ANY_THROW(sam.add_param_group(OptimizerParamGroup({vector_of(1.0)}), Options().rho(-1.0)));
  EXPECT_EQ(sam.param_groups().size(), 3u);
}

TEST(SharpnessAware, TheLatePhaseSwitchSavesTheSecondPass) {
  const at::Tensor w = vector_of(1.0);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.01));
  sam.last(0.25, 8);
  int passes = 0;
  for (int i = 0; i < 8; ++i)
    sam.step([&] {
      ++passes;
      return bowl({w})();
    });
  EXPECT_EQ(passes, 10);
}

TEST(SharpnessAware, TheReportSaysWhatTheStepSaw) {
  const at::Tensor w = vector_of(2.0);  // L = 12, |g| = 4 sqrt(3)
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.0), Options().rho(0.3));
  sam.step(bowl({w}));
  const Report& seen = sam.report();
  EXPECT_NEAR(seen.loss.item<double>(), 12.0, 1e-12);
  EXPECT_NEAR(seen.gradient_norm.item<double>(), 4.0 * std::sqrt(3.0), 1e-12);
  EXPECT_NEAR(seen.perturbation_norm.item<double>(), 0.3, 1e-12);
  EXPECT_NEAR(seen.sharpness.item<double>(), 2 * 0.3 * 2 * std::sqrt(3.0) + 0.09, 1e-12);
  EXPECT_EQ(seen.kept_share.item<double>(), 1.0);
  ASSERT_EQ(seen.layers.size(), 1u);
  EXPECT_TRUE(seen.layers[0].is_same(w));
}

TEST(SharpnessAware, AClosureMayLoopOverMicroBatches) {
  torch::manual_seed(4);
  const at::Tensor w = torch::randn({3}, at::kDouble).requires_grad_();
  const at::Tensor v = w.detach().clone().requires_grad_();
  const at::Tensor data = torch::randn({8, 3}, at::kDouble);
  SAM<SGD> whole(std::vector<at::Tensor>{w}, SGDOptions(0.1)), parts(std::vector<at::Tensor>{v}, SGDOptions(0.1));
  for (int i = 0; i < 5; ++i) {
    whole.step([&] {
      at::Tensor loss = data.matmul(w).square().mean();
      loss.backward();
      return loss;
    });
    parts.step([&] {
      at::Tensor total = torch::zeros({}, at::kDouble);
      for (const at::Tensor& batch : data.chunk(4)) {
        at::Tensor loss = batch.matmul(v).square().mean() / 4;
        loss.backward();
        total += loss.detach();
      }
      return total;
    });
  }
  EXPECT_TRUE(at::allclose(w, v, 1e-12, 1e-14));
}

TEST(SharpnessAware, ClippingBelongsBeforeTheDescent) {
  const at::Tensor w = vector_of(10.0);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(1.0));
  sam.before_descent([](std::vector<at::Tensor>& gradients) {
    for (at::Tensor& gradient : gradients) gradient.clamp_(-1, 1);
  });
  sam.step(bowl({w}));
  EXPECT_TRUE(w.eq(9.0).all().item<bool>());
}

TEST(SharpnessAware, AHookThatLosesGradientsIsAnError) {
  const at::Tensor w = vector_of(1.0);
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(1.0));
  sam.after_pass_one([](std::vector<at::Tensor>& gradients) { gradients.clear(); });
  EXPECT_NE(message_of([&] { sam.step(bowl({w})); }).find("must keep the number of gradients"), std::string::npos);
}

TEST(SharpnessAware, AnOptimizerDestroyedInMidStepPutsTheWeightsBack) {
  const at::Tensor w = vector_of(1.0);
  {
    SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(1.0));
    bowl({w})();
    ASSERT_TRUE(sam.ascend());
    EXPECT_FALSE(w.eq(1.0).all().item<bool>());
  }
  EXPECT_TRUE(w.eq(1.0).all().item<bool>());
}

TEST(SharpnessAware, TwoPhaseLeftOutStepsDescendAlongTheFirstGradient) {
  for (const bool second_pass_all_the_same : {false, true}) {
    const at::Tensor w = vector_of(1.0);
    SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.25));
    sam.from_step(1);
    bowl({w})();
    EXPECT_FALSE(sam.ascend());
    if (second_pass_all_the_same) bowl({w})();
    sam.descend();
    EXPECT_TRUE(w.eq(0.5).all().item<bool>()) << second_pass_all_the_same;
  }
}

TEST(SharpnessAware, KnowsTheBasesThatCountStepsOnTheHost) {
  EXPECT_TRUE(detail::counts_on_the_host<torch::optim::Adam>);
  EXPECT_TRUE(detail::counts_on_the_host<torch::optim::AdamW>);
  EXPECT_TRUE(detail::counts_on_the_host<torch::optim::LBFGS>);
  EXPECT_FALSE(detail::counts_on_the_host<SGD>);
  EXPECT_FALSE(detail::counts_on_the_host<DAS<SGD>>);
  EXPECT_TRUE(detail::counts_on_the_host<DAS<torch::optim::Adam>>);
}

TEST(SharpnessAware, SteadyStateKeepsItsMemory) {
  const at::Tensor w = torch::ones({1000}, at::kDouble).requires_grad_();
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.0), Options().placement(Placement::Buffer));
  std::vector<void*> addresses;
  int64_t bytes = 0;
  for (int step = 0; step < 4; ++step) {
    int pass = 0;
    sam.step([&] {
      if (++pass == 2) addresses.push_back(w.data_ptr());
      return bowl({w})();
    });
    if (step == 0) bytes = sam.memory_bytes();
  }
  EXPECT_EQ(std::count(addresses.begin(), addresses.end(), addresses.front()), 4);
  EXPECT_GE(bytes, 8000);
  EXPECT_EQ(sam.memory_bytes(), bytes);
  sam.release_memory();
  EXPECT_EQ(sam.memory_bytes(), 0);
  sam.step(bowl({w}));
  EXPECT_TRUE(w.eq(1.0).all().item<bool>());
}

TEST(SharpnessAware, ItMovesLikeAnyOptimizer) {
  const at::Tensor w = vector_of(1.0);
  SAM<SGD> first(std::vector<at::Tensor>{w}, SGDOptions(0.25), Options().rho(0.0));
  SAM<SGD> second(std::move(first));
  second.step(bowl({w}));
  EXPECT_TRUE(w.eq(0.5).all().item<bool>());

  // The moved-from optimizer has no parameters, and does nothing.
  first.zero_grad();
  first.replay(false);
  first.attach(std::vector<at::Tensor>{});
  EXPECT_THROW(first.step(), c10::Error);
}

TEST(Checkpoint, HoldsHyperParametersSchedulesAndCounters) {
  const at::Tensor w = torch::randn({4, 4}, at::kDouble).requires_grad_();
  using Chained = SharpnessAware<SGD, ascent::Chain<ascent::Centralize, ascent::ZScoreFilter, ascent::AdaptiveScale>,
                                 descent::Centralize>;
  Chained first(std::vector<at::Tensor>{w}, SGDOptions(0.125), Options().rho(0.3).in_norm(false));
  first.ascent().get<ascent::ZScoreFilter>().percentile(0.5).threshold(Threshold::Global);
  first.ascent().get<ascent::AdaptiveScale>().eta(0.125);
  first.descent().center_descent(true);
  first.rho_schedule(schedule::cosine(0.1, 0.2, 50)).every(2).from_step(1);
  first.step(bowl({w}));

  Chained second(std::vector<at::Tensor>{w}, SGDOptions(0.5));
  load(second, saved(first));
  EXPECT_EQ(second.steps(), 1);
  EXPECT_EQ(second.options().rho(), 0.3);
  EXPECT_FALSE(second.options().in_norm());
  EXPECT_EQ(second.options().rho_schedule()(25), schedule::cosine(0.1, 0.2, 50)(25));
  EXPECT_EQ(second.ascent().get<ascent::ZScoreFilter>().percentile(), 0.5);
  EXPECT_EQ(second.ascent().get<ascent::ZScoreFilter>().threshold(), Threshold::Global);
  EXPECT_EQ(second.ascent().get<ascent::AdaptiveScale>().eta(), 0.125);
  EXPECT_TRUE(second.descent().center_descent());
  EXPECT_EQ(second.param_groups()[0].options().get_lr(), 0.125);
  int passes = 0;
  for (int i = 0; i < 2; ++i)
    second.step([&] {
      ++passes;
      return bowl({w})();
    });
  EXPECT_EQ(passes, 3);  // step 1 is left out by every(2), step 2 is not
}

TEST(Checkpoint, KnowsWhichParametersAreExcluded) {
  const at::Tensor a = vector_of(1.0), b = vector_of(2.0);
  SAM<SGD> first(std::vector<at::Tensor>{a, b}, SGDOptions(0.0)),
      second(std::vector<at::Tensor>{a, b}, SGDOptions(0.0));
  first.exclude({b});
  load(second, saved(first));
  bool moved = true;
  int pass = 0;
  second.step([&] {
    if (++pass == 2) moved = !b.eq(2.0).all().item<bool>();
    return bowl({a, b})();
  });
  EXPECT_EQ(pass, 2);
  EXPECT_FALSE(moved);
}

TEST(Checkpoint, OfAnotherMethodGivesTheBasesStateAndTheCounters) {
  const at::Tensor w = torch::randn({4, 4}, at::kDouble).requires_grad_();
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.1).momentum(0.9), Options().rho(0.3));
  sam.step(bowl({w}));
  ZSharp<SGD> zsharp(std::vector<at::Tensor>{w}, SGDOptions(0.1).momentum(0.9), {},
                     ascent::ZScoreFilter().percentile(0.5));
  load(zsharp, saved(sam));
  EXPECT_EQ(zsharp.steps(), 1);
  EXPECT_EQ(zsharp.ascent().percentile(), 0.5);
  EXPECT_EQ(zsharp.options().rho(), 0.05);
  EXPECT_EQ(zsharp.state().size(), 1u);
}

TEST(Checkpoint, OfAnotherMethodLeavesTheSettingsAsTheyAre) {
  const at::Tensor a = vector_of(1.0), b = vector_of(2.0);
  LookSAM<SGD> looksam(std::vector<at::Tensor>{a, b}, SGDOptions(0.1).momentum(0.9));
  looksam.clip_grad_norm(0.01).exclude({b}).every(3);
  looksam.step(bowl({a, b}));
  SAM<SGD> sam(std::vector<at::Tensor>{a, b}, SGDOptions(0.1).momentum(0.9));
  load(sam, saved(looksam));
  EXPECT_EQ(sam.steps(), 1);
  int passes = 0;
  bool moved = false;
  sam.step([&] {
    if (++passes == 2) moved = !b.eq(2.0).all().item<bool>();
    return bowl({a, b})();
  });
  EXPECT_EQ(passes, 2);  // step 1 of every(3) would be a plain one
  EXPECT_TRUE(moved);
  EXPECT_GT(sam.report().gradient_norm.item<double>(), 0.01);
  Tail<SGD> tail(std::vector<at::Tensor>{a, b}, SGDOptions(0.1).momentum(0.9));
  tail.policy().total(10);
  sam.every(2);
  load(tail, saved(sam));
  EXPECT_EQ(tail.policy().first_step(), 7);
  SAM<SGD> same(std::vector<at::Tensor>{a, b}, SGDOptions(0.1).momentum(0.9));
  load(same, saved(sam));
  passes = 0;
  for (int i = 0; i < 2; ++i)
    same.step([&] {
      ++passes;
      return bowl({a, b})();
    });
  EXPECT_EQ(passes, 3);
  sam.options().rho(0.4);
  XSAM<SGD> xsam(std::vector<at::Tensor>{a, b}, SGDOptions(0.1).momentum(0.9));  // along the gradient as well
  load(xsam, saved(sam));
  EXPECT_EQ(xsam.options().rho(), 0.15);
}

TEST(Checkpoint, OfAnotherBaseOrShapeIsAnErrorThatChangesNothing) {
  const at::Tensor w = vector_of(1.0), v = vector_of(2.0);
  SAM<torch::optim::Adam> adam(std::vector<at::Tensor>{w}, torch::optim::AdamOptions(0.1));
  adam.step(bowl({w}));
  SAM<SGD> sgd(std::vector<at::Tensor>{w}, SGDOptions(0.1).momentum(0.9));
  sgd.step(bowl({w}));
  const std::string before = saved(sgd);
  EXPECT_NE(message_of([&] { load(sgd, saved(adam)); }).find("written over the base optimizer"), std::string::npos);
  SAM<SGD> two(std::vector<OptimizerParamGroup>{OptimizerParamGroup({w}), OptimizerParamGroup({v})}, SGDOptions(0.1));
  EXPECT_NE(message_of([&] { load(sgd, saved(two)); }).find("2 parameter groups, the optimizer has 1"),
            std::string::npos);
  SAM<SGD> more(std::vector<at::Tensor>{w, v}, SGDOptions(0.7).momentum(0.9));
  more.step(bowl({w, v}));
  EXPECT_ANY_THROW(load(sgd, saved(more)));
  EXPECT_EQ(sgd.param_groups()[0].options().get_lr(), 0.1);
  EXPECT_EQ(sgd.steps(), 1);
  EXPECT_EQ(sgd.state().size(), 1u);
}

TEST(Checkpoint, OfAPlainBaseThatFitsOnlyInPartChangesNothing) {
  // LibTorch loads group 0 before it reaches group 1, which does not fit.
  const at::Tensor a = vector_of(1.0), b = vector_of(2.0), c = vector_of(3.0);
  using Groups = std::vector<OptimizerParamGroup>;
  SGD plain(Groups{OptimizerParamGroup({a}), OptimizerParamGroup({b, c})}, SGDOptions(0.7).momentum(0.9));
  bowl({a, b, c})();
  plain.step();
  SAM<SGD> sam(Groups{OptimizerParamGroup({a}), OptimizerParamGroup({b})}, SGDOptions(0.1).momentum(0.9));
  EXPECT_ANY_THROW(load(sam, saved(plain)));
  EXPECT_EQ(sam.param_groups()[0].options().get_lr(), 0.1);
  EXPECT_TRUE(sam.state().empty());
}

/// A link with state of its own: an average of the gradients.
class AverageOfGradients {
 public:
  void operator()(std::vector<at::Tensor>& direction, const std::vector<at::Tensor>&) {
    average_.resize(direction.size());
    for (size_t i = 0; i < direction.size(); ++i) {
      average_[i] = average_[i].defined() ? average_[i] * 0.9 + direction[i] * 0.1 : direction[i].clone();
      direction[i] = average_[i].clone();
    }
  }
  template <class Fields>
  void fields(Fields& field) {
    field("average", average_);
  }
  const std::vector<at::Tensor>& average() const { return average_; }

 private:
  std::vector<at::Tensor> average_;
};

TEST(Checkpoint, CarriesTheStateOfAUsersOwnLink) {
  const at::Tensor w = vector_of(1.0);
  using Averaged = SharpnessAware<SGD, AverageOfGradients>;
  Averaged first(std::vector<at::Tensor>{w}, SGDOptions(0.1)), second(std::vector<at::Tensor>{w}, SGDOptions(0.1));
  first.step(bowl({w}));
  first.step(bowl({w}));
  load(second, saved(first));
  ASSERT_EQ(second.ascent().average().size(), 1u);
  EXPECT_TRUE(second.ascent().average()[0].equal(first.ascent().average()[0]));
}

TEST(Checkpoint, HoldsNoPerturbationBuffers) {
  const at::Tensor w = torch::ones({1 << 16}, at::kDouble).requires_grad_();
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.1));
  sam.step(bowl({w}));
  EXPECT_LT(saved(sam).size(), 1u << 16);
}

}  // namespace
}  // namespace steppe
