// The shapes that a training loop has: where it clears gradients, schedules, methods, checkpoints, threads.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <steppe/schedule.hpp>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/schedulers/step_lr.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/version.h>
#if TORCH_VERSION_MAJOR >= 2
#include <torch/optim/schedulers/reduce_on_plateau_scheduler.h>
#endif

#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "loop.hpp"

namespace steppe::plain_loops {
namespace {

using torch::optim::AdamW;
using torch::optim::AdamWOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

constexpr int kLoopSteps = 6;

SGDOptions momentum() { return SGDOptions(0.1).momentum(0.9).weight_decay(1e-3); }

/// Trains the small classifier; `iterate(way, model, optimizer, step)` makes one step and returns its loss.
template <class Optimizer, class BaseOptions, class Iterate>
Trace train(Way way, const BaseOptions& options, const Iterate& iterate,
            const std::function<void(Optimizer&)>& prepare = nullptr) {
  Net model;
  Optimizer optimizer(model, options);
  if (prepare) prepare(optimizer);
  Trace trace;
  for (int i = 0; i < kLoopSteps; ++i) {
    const at::Tensor loss = iterate(way, model, optimizer, i);
    trace.add(loss, optimizer.report());
  }
  trace.add(model);
  return trace;
}

at::Tensor pass(Net& model, const Batch& batch) {
  at::Tensor loss = model.loss(batch);
  loss.backward();
  return loss;
}

/// A report without the loss, which a closure may keep to itself.
Report perturbed_only(const Report& report) {
  Report rest;
  rest.perturbed = report.perturbed;
  return rest;
}

/// The plainest loop that there is.
template <class Optimizer>
at::Tensor iterate(Way way, Net& model, Optimizer& optimizer, int /*step*/) {
  const Batch batch = Batch::draw();
  return step(way, optimizer, [&] { return pass(model, batch); });
}

template <class Optimizer, class BaseOptions>
void expect_same_of(const BaseOptions& options, const std::function<void(Optimizer&)>& prepare = nullptr) {
  expect_same_in_both_ways([&](Way way) { return train<Optimizer>(way, options, iterate<Optimizer>, prepare); });
}

/// The same with a plain loop of its own shape: `plain(model, optimizer, batch)` returns the loss.
template <class Optimizer = SAM<SGD>, class Plain>
void expect_same_as_closure(const Plain& plain) {
  expect_same_in_both_ways([&](Way way) {
    return train<Optimizer>(way, momentum(), [&](Way now, Net& model, Optimizer& optimizer, int i) {
      if (now == Way::Closure) return iterate(now, model, optimizer, i);
      return plain(model, optimizer, Batch::draw());
    });
  });
}

// Methods and bases.

TEST(PlainLoop, OfEveryMethodIsThatWithAClosure) {
  expect_same_of<SAM<SGD>>(momentum());
  expect_same_of<SAM<AdamW>>(AdamWOptions(0.01));
  expect_same_of<ASAM<SGD>>(momentum());
  expect_same_of<ASAM<AdamW>>(AdamWOptions(0.01));
  expect_same_of<ZSharp<SGD>>(momentum());
  expect_same_of<ZSharp<AdamW>>(AdamWOptions(0.01));
  expect_same_of<GCSAM<SGD>>(momentum());
  expect_same_of<GCSAM<AdamW>>(AdamWOptions(0.01));
}

TEST(PlainLoop, OfEveryBaseIsThatWithAClosure) {
  expect_same_of<SAM<torch::optim::Adam>>(torch::optim::AdamOptions(0.01).amsgrad(true));
  expect_same_of<SAM<torch::optim::RMSprop>>(torch::optim::RMSpropOptions(0.01).momentum(0.5));
  expect_same_of<SAM<torch::optim::Adagrad>>(torch::optim::AdagradOptions(0.05));
}

TEST(PlainLoop, HasTheSameBitsInEveryPlacementOfTheWeights) {
  for (const Placement placement : {Placement::Auto, Placement::Buffer, Placement::InPlace})
    expect_same_of<SAM<SGD>>(momentum(), [&](SAM<SGD>& optimizer) { optimizer.options().placement(placement); });
}

TEST(PlainLoop, IsVerifiedOnceAlwaysOrNeverWithTheSameResult) {
  for (const Verify when : {Verify::Once, Verify::Always, Verify::Never})
    expect_same_of<SAM<SGD>>(momentum(), [&](SAM<SGD>& optimizer) { optimizer.replay(when); });
}

/// Optimizers that leave out steps, or take another rho in each.
const std::vector<std::function<void(SAM<SGD>&)>> kSchedules = {
    [](SAM<SGD>& optimizer) { optimizer.every(2); }, [](SAM<SGD>& optimizer) { optimizer.from_step(2); },
    [](SAM<SGD>& optimizer) { optimizer.rho_schedule(schedule::linear(0.01, 0.3, kLoopSteps)); },
    [](SAM<SGD>& optimizer) {
      optimizer.rho_schedule(schedule::custom([](int64_t step) { return step == 3 ? 0.0 : 0.1; }));
    }};

TEST(PlainLoop, FollowsASchedule) {
  for (const auto& prepare : kSchedules)
    expect_same_in_both_ways([&](Way way) {
      Net model;
      SAM<SGD> optimizer(model, momentum());
      prepare(optimizer);
      Trace trace;
      for (int i = 0; i < kLoopSteps; ++i) {
        iterate(way, model, optimizer, i);
        trace.add("first weight", model.first->weight);
        trace.add("sharpness", optimizer.report().sharpness);
        trace.add({}, perturbed_only(optimizer.report()));
      }
      trace.add(model);
      return trace;
    });
}

TEST(PlainLoop, KnowsTheLossAlsoOfStepsThatAScheduleLeavesOut) {
  for (const auto& prepare : kSchedules) expect_same_of<SAM<SGD>>(momentum(), prepare);
}

TEST(PlainLoop, CallsTheHooks) {
  int calls = 0;
  expect_same_of<SAM<SGD>>(momentum(), [&](SAM<SGD>& optimizer) {
    optimizer.after_pass_one([&](std::vector<at::Tensor>& gradients) {
      ++calls;
      for (at::Tensor& gradient : gradients) gradient.mul_(2);
    });
    optimizer.before_descent([&](std::vector<at::Tensor>& gradients) {
      ++calls;
      for (at::Tensor& gradient : gradients) gradient = gradient.clamp(-0.01, 0.01);
    });
  });
  EXPECT_EQ(calls, 2 * 2 * kLoopSteps);
}

TEST(PlainLoop, LeavesOutWhatIsExcluded) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    ASAM<SGD> optimizer(model, momentum());
    optimizer.exclude(biases_and_norms(model));
    Trace trace;
    for (int i = 0; i < kLoopSteps; ++i) {
      const at::Tensor loss = iterate(way, model, optimizer, i);
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

/// A loop over the base class, as a library's would be.
template <class Optimizer, class BaseOptions>
Trace train_plainly(const BaseOptions& options) {
  torch::manual_seed(11);
  Net model;
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  if constexpr (std::is_constructible_v<Optimizer, const Net&, const BaseOptions&, Options>)
    optimizer = std::make_unique<Optimizer>(model, options, Options().rho(0.0));
  else
    optimizer = std::make_unique<Optimizer>(model.parameters(), options);
  Trace trace;
  for (int i = 0; i < kLoopSteps; ++i) {
    const Batch batch = Batch::draw();
    optimizer->zero_grad();
    const at::Tensor loss = model.loss(batch);
    loss.backward();
    optimizer->step();
    trace.add("loss", loss);
  }
  trace.add(model);
  trace.add("generator", generator_state());
  return trace;
}

TEST(PlainLoop, WithRhoZeroIsThatOfThePlainOptimizer) {
  expect_same(train_plainly<SGD>(momentum()), train_plainly<SAM<SGD>>(momentum()));
  expect_same(train_plainly<AdamW>(AdamWOptions(0.01)), train_plainly<SAM<AdamW>>(AdamWOptions(0.01)));
}

TEST(PlainLoop, ServesAProgramThatHoldsTheBaseClass) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    auto ours = std::make_unique<SAM<SGD>>(model, momentum(), Options().rho(0.1));
    SAM<SGD>& sam = *ours;
    const std::unique_ptr<torch::optim::Optimizer> optimizer = std::move(ours);
    Trace trace;
    for (int i = 0; i < kLoopSteps; ++i) {
      const Batch batch = Batch::draw();
      const at::Tensor loss = step(way, *optimizer, [&] { return pass(model, batch); });
      trace.add(loss, sam.report());
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, FillsATensorThatHasTheTypeOfAValue) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    SAM<SGD> optimizer(model, momentum());
    Trace trace;
    for (int i = 0; i < kLoopSteps; ++i) {
      const Batch batch = Batch::draw();
      const at::Tensor loss = step(way, optimizer, [&] {
        const at::Tensor output = model.forward(batch.inputs);
        at::Tensor all = torch::zeros({2, 8, 3}).type_as(output);  // returned as it is
        for (int64_t t = 0; t < 2; ++t) all.select(0, t).copy_(model.forward(batch.inputs * static_cast<double>(t)));
        at::Tensor value = all.square().mean() + output.mean();
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

// Where gradients are cleared.

TEST(PlainLoop, MayClearGradientsBetweenForwardAndBackward) {
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    const at::Tensor loss = model.loss(batch);
    optimizer.zero_grad();
    loss.backward();
    return optimizer.step();
  });
}

TEST(PlainLoop, MayClearGradientsThroughTheBaseClassBetweenForwardAndBackward) {
  expect_same_as_closure([](Net& model, torch::optim::Optimizer& optimizer, const Batch& batch) {
    const at::Tensor loss = model.loss(batch);
    optimizer.zero_grad();
    loss.backward();
    return optimizer.step();
  });
}

TEST(PlainLoop, MayClearGradientsAfterTheStep) {
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    pass(model, batch);
    const at::Tensor loss = optimizer.step();
    optimizer.zero_grad();
    return loss;
  });
}

TEST(PlainLoop, MayClearGradientsThroughTheModule) {
  for (const bool set_to_none : {false, true})
    expect_same_as_closure([&](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
      model.zero_grad(set_to_none);
      pass(model, batch);
      return optimizer.step();
    });
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    model.zero_grad();
    pass(model, batch);
    return optimizer.step();
  });
}

TEST(PlainLoop, MayClearGradientsOneByOne) {
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    for (at::Tensor& param : model.parameters())
      if (param.grad().defined()) param.grad().zero_();
    pass(model, batch);
    return optimizer.step();
  });
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    for (at::Tensor& param : model.parameters()) param.mutable_grad().reset();
    pass(model, batch);
    return optimizer.step();
  });
}

#if TORCH_VERSION_MAJOR >= 2
TEST(PlainLoop, MayFillGradientsWithZeros) {
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    optimizer.zero_grad(/*set_to_none=*/false);
    pass(model, batch);
    return optimizer.step();
  });
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    const at::Tensor loss = model.loss(batch);
    optimizer.zero_grad(/*set_to_none=*/false);
    loss.backward();
    return optimizer.step();
  });
  expect_same_as_closure([](Net& model, torch::optim::Optimizer& optimizer, const Batch& batch) {
    const at::Tensor loss = model.loss(batch);
    optimizer.zero_grad(/*set_to_none=*/false);
    loss.backward();
    return optimizer.step();
  });
}
#endif

TEST(PlainLoop, MayThrowAwayABackwardPass) {
  expect_same_in_both_ways([](Way way) {
    return train<SAM<SGD>>(way, momentum(), [](Way now, Net& model, SAM<SGD>& optimizer, int i) {
      if (i % 2 == 1) pass(model, Batch::draw());  // and clear it
      return iterate(now, model, optimizer, i);
    });
  });
}

TEST(PlainLoop, MayMakeAForwardPassThatNothingComesOf) {
  expect_same_in_both_ways([](Way way) {
    return train<SAM<SGD>>(way, momentum(), [](Way now, Net& model, SAM<SGD>& optimizer, int i) {
      if (i % 2 == 1) model.loss(Batch::draw());
      return iterate(now, model, optimizer, i);
    });
  });
}

TEST(PlainLoop, AddsUpMicroBatches) {
  for (const bool through_base : {false, true}) {
    expect_same_in_both_ways([&](Way way) {
      return train<SAM<AdamW>>(way, AdamWOptions(0.01), [&](Way now, Net& model, SAM<AdamW>& ours, int) {
        std::vector<Batch> batches;
        for (int64_t k = 0; k < 4; ++k) batches.push_back(Batch::draw(3 + k));
        const auto passes = [&] {
          at::Tensor sum;
          for (const Batch& batch : batches) {
            const at::Tensor loss = model.loss(batch) / 4;
            loss.backward();
            sum = sum.defined() ? sum + loss.detach() : loss.detach();
          }
          return sum;
        };
        if (!through_base) return step(now, ours, passes);
        torch::optim::Optimizer& optimizer = ours;
        return step(now, optimizer, passes);
      });
    });
  }
}

TEST(PlainLoop, StepsWhenAsManyMicroBatchesAsItWantsHaveBeenAddedUp) {
  expect_same_in_both_ways([](Way way) {
    Net model(0.0);  // the closure makes its passes after all batches are drawn
    SAM<SGD> optimizer(model, momentum());
    std::vector<Batch> batches;
    Trace trace;
    optimizer.zero_grad();
    for (int i = 0; i < 12; ++i) {
      batches.push_back(Batch::draw());
      if (way == Way::Plain) (model.loss(batches.back()) / 3).backward();
      if (i % 3 != 2) continue;
      if (way == Way::Plain) {
        optimizer.step();
        optimizer.zero_grad();
      } else {
        optimizer.step([&] {
          for (const Batch& batch : batches) (model.loss(batch) / 3).backward();
          return at::Tensor();
        });
      }
      trace.add("first weight", model.first->weight);
      batches.clear();
    }
    trace.add(model);
    trace.add({}, perturbed_only(optimizer.report()));
    return trace;
  });
}

// Around the loop.

TEST(PlainLoop, FollowsASchedulerOfTheLearningRate) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    SAM<SGD> optimizer(model, momentum(), Options().rho_schedule(schedule::proportional_to_lr(0.01, 0.05, 0.0, 0.1)));
    torch::optim::StepLR scheduler(optimizer, 2, 0.5);
    Trace trace;
    for (int i = 0; i < kLoopSteps; ++i) {
      const at::Tensor loss = iterate(way, model, optimizer, i);
      scheduler.step();
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

#if TORCH_VERSION_MAJOR >= 2
TEST(PlainLoop, FollowsASchedulerThatWaitsForAPlateau) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    SAM<SGD> optimizer(model, momentum());
    torch::optim::ReduceLROnPlateauScheduler scheduler(optimizer, torch::optim::ReduceLROnPlateauScheduler::min,
                                                       /*factor=*/0.5F, /*patience=*/0);
    Trace trace;
    for (int i = 0; i < 2 * kLoopSteps; ++i) {
      const at::Tensor loss = iterate(way, model, optimizer, i);
      scheduler.step(loss.item<float>());
      trace.add(loss, optimizer.report());
    }
    EXPECT_LT(optimizer.param_groups()[0].options().get_lr(), 0.1);
    trace.add(model);
    return trace;
  });
}
#endif

TEST(PlainLoop, EvaluatesBetweenIterations) {
  for (const bool with_gradients : {false, true}) {
    expect_same_in_both_ways([&](Way way) {
      Net model;
      SAM<SGD> optimizer(model, momentum());
      const Batch held_out = Batch::draw(20);
      Trace trace;
      for (int i = 0; i < kLoopSteps; ++i) {
        const at::Tensor loss = iterate(way, model, optimizer, i);
        trace.add(loss, optimizer.report());
        model.eval();
        const c10::AutoGradMode mode(with_gradients);
        trace.add("evaluation", model.loss(held_out));
        model.train();
      }
      trace.add(model);
      return trace;
    });
  }
}

TEST(PlainLoop, EvaluatesInInferenceModeBetweenIterations) {
  expect_same_in_both_ways([&](Way way) {
    Net model;
    SAM<SGD> optimizer(model, momentum());
    const Batch held_out = Batch::draw(20);
    Trace trace;
    for (int i = 0; i < kLoopSteps; ++i) {
      const at::Tensor loss = iterate(way, model, optimizer, i);
      trace.add(loss, optimizer.report());
      model.eval();
      double value = 0.0;
      {
        const c10::InferenceMode inference;
        value = model.loss(held_out).item<double>();
      }
      trace.add("evaluation", torch::tensor(value));
      model.train();
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, MeasuresItselfBetweenForwardAndBackward) {
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    optimizer.zero_grad();
    const at::Tensor output = model.forward(batch.inputs);
    const at::Tensor loss = torch::cross_entropy_loss(output, batch.targets);
    {
      const c10::NoGradGuard no_grad;
      model.eval();
      EXPECT_TRUE(model.loss(batch).isfinite().item<bool>());
      EXPECT_LE(output.argmax(1).eq(batch.targets).sum().item<int64_t>(), 8);
      model.train();
    }
    loss.backward();
    return optimizer.step();
  });
}

TEST(PlainLoop, GoesOnAfterAForwardPassThatThrew) {
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    optimizer.zero_grad();
    EXPECT_ANY_THROW(model.second(model.first(batch.inputs).narrow(1, 0, 5)));
    pass(model, batch);
    return optimizer.step();
  });
}

TEST(PlainLoop, RunsTheHooksOfParameters) {
  expect_same_in_both_ways([&](Way way) {
    Net model;
    model.first->weight.register_hook([](const at::Tensor& gradient) { return gradient * 0.5; });
    SAM<SGD> optimizer(model, momentum());
    Trace trace;
    for (int i = 0; i < kLoopSteps; ++i) {
      const at::Tensor loss = iterate(way, model, optimizer, i);
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, GoesOnFromACheckpoint) {
  const auto train_on = [](Net& model, SAM<AdamW>& optimizer, int steps, int seed, Trace& trace) {
    torch::manual_seed(static_cast<uint64_t>(seed));
    for (int i = 0; i < steps; ++i) {
      const at::Tensor loss = iterate(Way::Plain, model, optimizer, i);
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
  };
  std::stringstream model_file, optimizer_file;
  Trace before, expected, seen;
  {
    torch::manual_seed(1);
    const auto model = std::make_shared<Net>();
    SAM<AdamW> optimizer(*model, AdamWOptions(0.01));
    optimizer.every(2);
    train_on(*model, optimizer, 3, 5, before);
    torch::save(std::static_pointer_cast<torch::nn::Module>(model), model_file);
    torch::save(optimizer, optimizer_file);
    train_on(*model, optimizer, 4, 6, expected);
    EXPECT_EQ(optimizer.steps(), 7);
  }
  std::shared_ptr<torch::nn::Module> model = std::make_shared<Net>();
  SAM<AdamW> optimizer(*model, AdamWOptions(0.5));
  torch::load(model, model_file);
  torch::load(optimizer, optimizer_file);
  train_on(static_cast<Net&>(*model), optimizer, 4, 6, seen);
  EXPECT_EQ(optimizer.steps(), 7);
  expect_same(expected, seen);
}

TEST(PlainLoop, LoadsACheckpointIntoALoopThatRuns) {
  std::stringstream model_file, optimizer_file;
  std::shared_ptr<torch::nn::Module> model = std::make_shared<Net>();
  Net& net = static_cast<Net&>(*model);
  SAM<SGD> optimizer(net, momentum());
  const auto train_on = [&] {
    torch::manual_seed(4);
    Trace trace;
    for (int i = 0; i < 3; ++i) {
      const at::Tensor loss = iterate(Way::Plain, net, optimizer, i);
      trace.add(loss, optimizer.report());
    }
    trace.add(net);
    return trace;
  };
  train_on();
  torch::save(model, model_file);
  torch::save(optimizer, optimizer_file);
  const Trace expected = train_on();
  torch::load(model, model_file);
  torch::load(optimizer, optimizer_file);
  expect_same(expected, train_on());
}

TEST(PlainLoop, TakesAGroupThatIsAddedBetweenIterations) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    SAM<SGD> optimizer(model.second->parameters(), momentum());
    optimizer.attach(model);
    Trace trace;
    for (int i = 0; i < kLoopSteps; ++i) {
      if (i == 2) {
        torch::optim::OptimizerParamGroup group(model.first->parameters());
        optimizer.add_param_group(group);
      }
      const at::Tensor loss = iterate(way, model, optimizer, i);
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, MayFollowStepsWithAClosureIfReplayIsTurnedOnAgain) {
  expect_same_in_both_ways([](Way way) {
    return train<SAM<SGD>>(way, momentum(), [](Way now, Net& model, SAM<SGD>& optimizer, int i) {
      const bool closure = now == Way::Closure || i % 3 == 0;
      if (!closure) optimizer.replay(true);
      return iterate(closure ? Way::Closure : Way::Plain, model, optimizer, i);
    });
  });
}

TEST(PlainLoop, OfAnOptimizerThatWasMovedGoesOn) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    std::vector<SAM<SGD>> optimizers;
    optimizers.emplace_back(model, momentum());
    Trace trace;
    for (int i = 0; i < kLoopSteps; ++i) {
      if (i == 2) {
        SAM<SGD> moved = std::move(optimizers.front());
        optimizers.clear();
        optimizers.push_back(std::move(moved));
      }
      const at::Tensor loss = iterate(way, model, optimizers.front(), i);
      trace.add(loss, optimizers.front().report());
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, OfASecondOptimizerOverTheSameModelFollowsTheFirst) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    Trace trace;
    for (int round = 0; round < 3; ++round) {
      SAM<SGD> optimizer(model, momentum());
      for (int i = 0; i < 2; ++i) {
        const at::Tensor loss = iterate(way, model, optimizer, i);
        trace.add(loss, optimizer.report());
      }
    }
    trace.add(model);
    return trace;
  });
}

// Threads.

TEST(PlainLoop, MayGoBackOnAnotherThread) {
  expect_same_as_closure([](Net& model, SAM<SGD>& optimizer, const Batch& batch) {
    optimizer.zero_grad();
    const at::Tensor loss = model.loss(batch);
    std::thread([&] { loss.backward(); }).join();
    return optimizer.step();
  });
}

TEST(PlainLoop, GoesBackOnTwoThreadsInTurn) {
  expect_same_in_both_ways([](Way way) {
    return train<SAM<SGD>>(way, momentum(), [](Way now, Net& model, SAM<SGD>& optimizer, int) {
      const Batch first = Batch::draw(), second = Batch::draw();
      return step(now, optimizer, [&] {
        const at::Tensor one = model.loss(first), two = model.loss(second);
        if (now == Way::Closure)
          one.backward();
        else
          std::thread([&] { one.backward(); }).join();
        two.backward();
        return one.detach() + two.detach();
      });
    });
  });
}

/// A loop without random numbers in it, over data that were drawn before.
Trace train_without_chance(Way way, const Net& start, const std::vector<Batch>& batches) {
  Net model(0.0);
  {
    const c10::NoGradGuard no_grad;
    for (size_t i = 0; i < start.parameters().size(); ++i) model.parameters()[i].copy_(start.parameters()[i]);
  }
  SAM<SGD> optimizer(model, momentum());
  Trace trace;
  for (const Batch& batch : batches) {
    const at::Tensor loss = step(way, optimizer, [&] { return pass(model, batch); });
    trace.add(loss, optimizer.report());
  }
  trace.add(model);
  return trace;
}

TEST(PlainLoop, RunsInTwoThreadsAtOnce) {
  torch::manual_seed(2);
  const Net first(0.0), second(0.0);
  std::vector<Batch> batches;
  for (int i = 0; i < 100; ++i) batches.push_back(Batch::draw());
  const Trace expected_first = train_without_chance(Way::Closure, first, batches);
  const Trace expected_second = train_without_chance(Way::Closure, second, batches);
  Trace seen_first, seen_second;
  std::thread one([&] { seen_first = train_without_chance(Way::Plain, first, batches); });
  std::thread two([&] { seen_second = train_without_chance(Way::Plain, second, batches); });
  one.join();
  two.join();
  expect_same(expected_first, seen_first);
  expect_same(expected_second, seen_second);
}

TEST(PlainLoop, MayTrainOnAnotherThreadThanTheOptimizerWasMadeOn) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    SAM<SGD> optimizer(model, momentum());
    Trace trace;
    const auto train_two = [&] {
      if (way == Way::Plain) optimizer.replay(true);
      for (int i = 0; i < 2; ++i) {
        const at::Tensor loss = iterate(way, model, optimizer, i);
        trace.add(loss, optimizer.report());
      }
    };
    std::thread(train_two).join();
    train_two();
    std::thread(train_two).join();
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, OutlivesTheThreadThatMadeTheOptimizer) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    std::unique_ptr<SAM<SGD>> optimizer;
    std::thread([&] { optimizer = std::make_unique<SAM<SGD>>(model, momentum()); }).join();
    Trace trace;
    if (way == Way::Plain) optimizer->replay(true);
    for (int i = 0; i < kLoopSteps; ++i) {
      const at::Tensor loss = iterate(way, model, *optimizer, i);
      trace.add(loss, optimizer->report());
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, HasTheSameBitsWithOneThreadOfLibTorchAndWithFour) {
  const int before = at::get_num_threads();
  for (const int threads : {1, 4}) {
    at::set_num_threads(threads);
    expect_same_in_both_ways([](Way way) {
      torch::nn::Conv2d convolution(torch::nn::Conv2dOptions(3, 8, 3).padding(1));
      torch::nn::BatchNorm2d norm(8);
      torch::nn::Linear head(8 * 16 * 16, 10);
      std::vector<at::Tensor> params = convolution->parameters();
      for (const at::Tensor& param : norm->parameters()) params.push_back(param);
      for (const at::Tensor& param : head->parameters()) params.push_back(param);
      SAM<SGD> optimizer(params, momentum());
      Trace trace;
      for (int i = 0; i < 4; ++i) {
        const at::Tensor data = torch::randn({32, 3, 32, 32}), target = torch::randint(10, {32}, at::kLong);
        const at::Tensor loss = step(way, optimizer, [&] {
          const at::Tensor hidden = torch::max_pool2d(torch::relu(norm(convolution(data))), 2);
          at::Tensor value = torch::cross_entropy_loss(head(torch::dropout(hidden.flatten(1), 0.3, true)), target);
          value.backward();
          return value;
        });
        trace.add(loss, optimizer.report());
      }
      for (const at::Tensor& param : params) trace.add("parameter", param);
      return trace;
    });
  }
  at::set_num_threads(before);
}

}  // namespace
}  // namespace steppe::plain_loops
