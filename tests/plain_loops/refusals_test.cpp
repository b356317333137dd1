// What step() cannot repeat is an error with its reason, and nothing changes.
// SPDX-License-Identifier: MIT
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adam.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/sgd.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "../errors.hpp"
#include "loop.hpp"

namespace steppe::plain_loops {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

using Words = std::vector<std::string>;

/// A model after some ordinary iterations, the optimizer and data.
struct Program {
  explicit Program(int iterations = 0) {
    optimizer.clip_grad_norm(100.0);
    for (int i = 0; i < iterations; ++i) {
      optimizer.zero_grad();
      model.loss(batch).backward();
      optimizer.step();
    }
    optimizer.zero_grad();
  }

  Trace state() const {
    Trace trace;
    trace.add(model);
    for (const auto& param : model.named_parameters()) trace.add("gradient of " + param.key(), param.value().grad());
    trace.add("generator", generator_state());
    trace.add("steps", torch::tensor(optimizer.steps()));
    return trace;
  }

  /// step() throws, its error contains all of these words, and nothing has changed.
  void expect_refusal(const Words& words) {
    const Trace before = state();
    const std::string message = message_of([&] { optimizer.step(); });
    for (const std::string& word : words)
      EXPECT_NE(message.find(word), std::string::npos) << word << " in: " << message;
    expect_same(before, state());
  }

  /// And an ordinary iteration after that succeeds.
  void expect_recovery() {
    const int64_t steps = optimizer.steps();
    optimizer.zero_grad();
    model.loss(batch).backward();
    EXPECT_EQ(message_of([&] { optimizer.step(); }), "");
    EXPECT_EQ(optimizer.steps(), steps + 1);
    EXPECT_TRUE(optimizer.report().perturbed);
  }

  static Batch seeded() {
    torch::manual_seed(5);
    return Batch::draw();
  }

  Batch batch = seeded();
  Net model;
  SAM<SGD> optimizer{model, SGDOptions(0.1), Options().rho(0.2)};
};

/// Tests a pass in the first iteration and in a later one, when its like may have been verified.
void expect_refused(const std::function<void(Program&)>& pass, const Words& words) {
  for (const int iterations : {0, 2}) {
    SCOPED_TRACE(testing::Message() << "after " << iterations << " iterations");
    Program program(iterations);
    pass(program);
    program.expect_refusal(words);
    program.expect_recovery();
  }
}

// Forward passes.

/// The sign, differentiated as if it were the identity.
struct SignOfOnesOwn : public torch::autograd::Function<SignOfOnesOwn> {
  static at::Tensor forward(torch::autograd::AutogradContext* /*context*/, const at::Tensor& x) { return x.sign(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* /*context*/,
                                                 const torch::autograd::variable_list& gradients) {
    return gradients;
  }
};

/// The mean, likewise.
struct MeanOfOnesOwn : public torch::autograd::Function<MeanOfOnesOwn> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x) {
    context->saved_data["sizes"] = x.sizes().vec();
    return x.mean();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    return {gradients[0].expand(context->saved_data["sizes"].toIntVector())};
  }
};

TEST(PlainLoopRefuses, AFunctionOfOnesOwn) {
  expect_refused(
      [](Program& program) {
        const at::Tensor hidden = SignOfOnesOwn::apply(program.model.first(program.batch.inputs));
        torch::cross_entropy_loss(program.model.second(hidden), program.batch.targets).backward();
      },
      {"SignOfOnesOwn", "step(closure)"});
}

TEST(PlainLoopRefuses, AFunctionOfOnesOwnAsTheLoss) {
  expect_refused(
      [](Program& program) { MeanOfOnesOwn::apply(program.model.forward(program.batch.inputs).square()).backward(); },
      {"MeanOfOnesOwn", "step(closure)"});
}

TEST(PlainLoopRefuses, AFunctionOfOnesOwnWhoseResultIsWrittenInPlace) {
  expect_refused(
      [](Program& program) {
        at::Tensor hidden = SignOfOnesOwn::apply(program.model.first(program.batch.inputs));
        hidden.mul_(2.0);
        torch::cross_entropy_loss(program.model.second(hidden), program.batch.targets).backward();
      },
      {"SignOfOnesOwn"});
}

TEST(PlainLoopRefuses, AValueWrittenIntoATensorFromBeforeTheStep) {
  for (const bool whole : {false, true}) {
    at::Tensor cache = torch::zeros({2, 8, 3});
    expect_refused(
        [&](Program& program) {
          cache.detach_();
          if (whole)
            cache.copy_(program.model.forward(program.batch.inputs).expand({2, 8, 3}));
          else
            cache.select(0, 1).copy_(program.model.forward(program.batch.inputs));
          cache.square().mean().backward();
        },
        {"copy_", "from before the step"});
  }
}

TEST(PlainLoopRefuses, AValueThatMayComeFromBeforeTheLoop) {
  // By the base class zero_grad() is not seen: is the target this iteration's, or of before it?
  Net model;
  SAM<SGD> sam(model, torch::optim::SGDOptions(0.1));
  torch::optim::Optimizer& optimizer = sam;
  const Batch batch = Program::seeded();
  const auto pass = [&] {
    at::Tensor target;
    {
      const c10::NoGradGuard no_grad;
      target = model.forward(batch.inputs);
    }
    optimizer.zero_grad();
    (model.forward(batch.inputs) - 2 * target).square().mean().backward();
  };
  pass();
  const at::Tensor before = model.parameters()[0].detach().clone();
  const std::string message = message_of([&] { optimizer.step(); });
  for (const char* word : {"before the loop", "zero_grad()", "replay(true)"})
    EXPECT_NE(message.find(word), std::string::npos) << message;
  EXPECT_TRUE(at::equal(model.parameters()[0], before));
  EXPECT_EQ(sam.steps(), 0);
  sam.replay(true);  // the loop begins here
  pass();
  optimizer.step();
  EXPECT_EQ(sam.steps(), 1);
}

TEST(PlainLoopRefuses, AConstantThatWasWrittenTo) {
  expect_refused(
      [](Program& program) {
        program.model.loss(program.batch).backward();
        program.batch.inputs.add_(1);
      },
      {"[8, 6]", "written to since"});
  expect_refused(
      [](Program& program) {
        at::Tensor offset = torch::ones({8, 1});
        const at::Tensor output = program.model.forward(program.batch.inputs) + offset;
        offset.mul_(2);
        torch::cross_entropy_loss(output + program.model.forward(program.batch.inputs), program.batch.targets)
            .backward();
      },
      {"[8, 1]", "written to since"});
}

TEST(PlainLoopRefuses, AnInputMadeFromAGradientOfTheStep) {
  expect_refused(
      [](Program& program) {
        const at::Tensor inputs = program.batch.inputs.clone().requires_grad_();
        const at::Tensor loss = program.model.loss({inputs, program.batch.targets});
        const at::Tensor along = torch::autograd::grad({loss}, {inputs})[0];
        program.model.loss({(inputs + 0.1 * along.sign()).detach(), program.batch.targets}).backward();
      },
      {"gradient", "step(closure)"});
}

TEST(PlainLoopRefuses, AnInputMadeFromAGradientThatBackwardLeft) {
  expect_refused(
      [](Program& program) {
        const at::Tensor inputs = program.batch.inputs.clone().requires_grad_();
        program.model.loss({inputs, program.batch.targets}).backward();
        program.model.loss({(inputs + 0.1 * inputs.grad().sign()).detach(), program.batch.targets}).backward();
      },
      {"gradient", "step(closure)"});
}

TEST(PlainLoopRefuses, AGradientHandedOnFromOneGraphToAnother) {
  expect_refused(
      [](Program& program) {
        const at::Tensor hidden = program.model.first(program.batch.inputs).tanh();
        const at::Tensor cut = hidden.detach().requires_grad_();
        torch::cross_entropy_loss(program.model.second(cut), program.batch.targets).backward();
        hidden.backward(cut.grad());
      },
      {"gradient", "step(closure)"});
}

TEST(PlainLoopRefuses, APenaltyOnAGradient) {
  expect_refused(
      [](Program& program) {
        const at::Tensor inputs = program.batch.inputs.clone().requires_grad_();
        const at::Tensor output = program.model.forward(inputs);
        const at::Tensor slope = torch::autograd::grad({output.sum()}, {inputs}, {}, true, /*create_graph=*/true)[0];
        (output.mean() + (slope.norm(2, 1) - 1).square().mean()).backward();
      },
      {"computed from a gradient", "step(closure)"});
}

TEST(PlainLoopRefuses, AForwardPassOnAnotherThread) {
  expect_refused(
      [](Program& program) {
        at::Tensor loss;
        std::thread([&] { loss = program.model.loss(program.batch); }).join();
        loss.backward();
      },
      {"another thread", "replay(true)"});
  expect_refused([](Program& program) { std::thread([&] { program.model.loss(program.batch).backward(); }).join(); },
                 {"another thread", "replay(true)"});
}

TEST(PlainLoopRefuses, AForwardPassWhoseSecondPartRanOnAnotherThread) {
  expect_refused(
      [](Program& program) {
        const at::Tensor hidden = program.model.first(program.batch.inputs).tanh();
        at::Tensor output;
        std::thread([&] { output = program.model.second(hidden); }).join();
        torch::cross_entropy_loss(output, program.batch.targets).backward();
      },
      {"another thread"});
}

TEST(PlainLoopRefuses, AValueWrittenThroughAPointer) {
  expect_refused(
      [](Program& program) {
        const at::Tensor hidden = program.model.first(program.batch.inputs);
        at::Tensor scale = torch::ones({16});
        for (int64_t k = 0; k < 16; ++k) scale.data_ptr<float>()[k] = hidden.detach()[0][k].item<float>();
        const at::Tensor output = program.model.second(hidden * scale);
        scale.data_ptr<float>()[0] += 1.0F;  // no version counts this
        torch::cross_entropy_loss(output, program.batch.targets).backward();
      },
      {"another gradient than backward() left", "written through a pointer"});
}

TEST(PlainLoopRefuses, AHookOfATensor) {
  expect_refused(
      [](Program& program) {
        const at::Tensor hidden = program.model.first(program.batch.inputs).tanh();
        hidden.register_hook([](const at::Tensor& gradient) { return gradient * 0.5; });
        torch::cross_entropy_loss(program.model.second(hidden), program.batch.targets).backward();
      },
      {"a hook is registered at", "before_descent()"});
}

TEST(PlainLoopRefuses, AHookThatDoesNothingYet) {
  expect_refused(
      [](Program& program) {
        const at::Tensor hidden = program.model.first(program.batch.inputs).tanh();
        hidden.register_hook([](const at::Tensor& gradient) { return gradient; });
        torch::cross_entropy_loss(program.model.second(hidden), program.batch.targets).backward();
      },
      {"a hook is registered at"});
}

// Gradients.

TEST(PlainLoopRefuses, GradientsThatLibTorchClipped) {
  expect_refused(
      [](Program& program) {
        program.model.loss(program.batch).backward();
        torch::nn::utils::clip_grad_norm_(program.model.parameters(), 0.01);
      },
      {"between backward() and step()", "clip_grad_norm()"});
  expect_refused(
      [](Program& program) {
        program.model.loss(program.batch).backward();
        torch::nn::utils::clip_grad_value_(program.model.parameters(), 0.001);
      },
      {"between backward() and step()", "clip_grad_value()"});
}

TEST(PlainLoopRefuses, GradientsThatWereReplacedOrWrittenTo) {
  const Words words = {"between backward() and step()", "before_descent()"};
  expect_refused(
      [](Program& program) {
        program.model.loss(program.batch).backward();
        at::Tensor weight = program.model.second->weight;
        weight.mutable_grad() = weight.grad() * 2;
      },
      words);
  expect_refused(
      [](Program& program) {
        program.model.loss(program.batch).backward();
        program.model.second->bias.mutable_grad().reset();
      },
      words);
  expect_refused(
      [](Program& program) {
        program.model.loss(program.batch).backward();
        program.model.second->weight.grad().div_(8.0);
      },
      words);
  expect_refused(
      [](Program& program) {
        program.model.loss(program.batch).backward();
        program.model.second->weight.grad().data().div_(8.0);
      },
      words);
}

TEST(PlainLoopRefuses, GradientsThatWereChangedBetweenTwoBackwardPasses) {
  expect_refused(
      [](Program& program) {
        program.model.loss(program.batch).backward();
        program.model.second->weight.grad().div_(8.0);
        program.model.loss(program.batch).backward();
      },
      {"gradient", "before_descent()"});
}

TEST(PlainLoopRefuses, ABackwardPassThatCreatesAGraph) {
  expect_refused(
      [](Program& program) {
        program.model.loss(program.batch).backward({}, /*retain_graph=*/true, /*create_graph=*/true);
        for (const at::Tensor& param : program.model.parameters()) param.grad().detach_();
      },
      {"create_graph"});
}

TEST(PlainLoopRefuses, AStepWithoutABackwardPass) {
  expect_refused([](Program& program) { program.model.loss(program.batch); }, {"call backward() before it"});
  expect_refused([](Program&) {}, {"call backward() before it"});
}

TEST(PlainLoopRefuses, GradientsThatWereNotClearedSinceTheLastStep) {
  for (const bool perturbed : {true, false}) {
    Program program;
    program.model.loss(program.batch).backward();
    if (!perturbed) program.optimizer.every(2).from_step(2);
    program.optimizer.step();
    program.optimizer.every(1).from_step(0);
    program.model.loss(program.batch).backward();
    program.expect_refusal({"not cleared", "zero_grad()"});
    program.expect_recovery();
  }
}

TEST(PlainLoopRefuses, ASecondStepFromOneBackwardPass) {
  Program program;
  program.model.loss(program.batch).backward();
  program.optimizer.step();
  program.expect_refusal({"step(closure)"});
  program.expect_recovery();
}

/// A net whose parts have optimizers of their own; that of the head steps in between.
template <class Other>
void expect_refused_beside(int iterations, const std::function<void(Other&)>& other_steps) {
  SCOPED_TRACE(testing::Message() << "after " << iterations << " iterations");
  const Batch batch = Program::seeded();
  Net model;
  SAM<SGD> optimizer(model.first->parameters(), SGDOptions(0.1), Options().rho(0.2));
  Other other(model.second->parameters(), SGDOptions(0.1));
  for (int i = 0; i <= iterations; ++i) {
    model.zero_grad();
    model.loss(batch).backward();
    if (i < iterations) optimizer.step();
  }
  other_steps(other);
  const auto state = [&] {
    Trace trace;
    trace.add(model);
    for (const auto& param : model.named_parameters()) trace.add("gradient of " + param.key(), param.value().grad());
    trace.add("generator", generator_state());
    trace.add("steps", torch::tensor(optimizer.steps()));
    return trace;
  };
  const Trace before = state();
  const std::string message = message_of([&] { optimizer.step(); });
  EXPECT_NE(message.find("another optimizer"), std::string::npos) << message;
  expect_same(before, state());
}

TEST(PlainLoopRefuses, AStepOfAnotherOptimizerOfItsKindInBetween) {
  for (const int iterations : {0, 2})
    expect_refused_beside<SAM<SGD>>(iterations, [](SAM<SGD>& other) { other.step(); });
}

TEST(PlainLoopRefuses, AStepOfAPlainOptimizerInBetween) {
  for (const int iterations : {0, 2}) expect_refused_beside<SGD>(iterations, [](SGD& other) { other.step(); });
}

// Optimizers.

TEST(PlainLoopRefuses, LbfgsWithoutAClosure) {
  Net model;
  SAM<torch::optim::LBFGS> optimizer(model, torch::optim::LBFGSOptions(0.1));
  model.loss(Program::seeded()).backward();
  const std::string message = message_of([&] { optimizer.step(nullptr); });
  EXPECT_NE(message.find("LBFGS"), std::string::npos) << message;
  EXPECT_NE(message.find("needs a closure"), std::string::npos) << message;
  EXPECT_EQ(optimizer.steps(), 0);
}

TEST(PlainLoopRefuses, ALoopThatIsNotRecorded) {
  Program program;
  const auto pass = [&] {
    program.optimizer.zero_grad();
    at::Tensor loss = program.model.loss(program.batch);
    loss.backward();
    return loss;
  };
  program.optimizer.step(pass);
  pass();
  program.expect_refusal({"step(closure) was called", "replay(true)"});
  program.optimizer.replay(true);
  program.expect_recovery();

  program.optimizer.replay(false);
  pass();
  program.expect_refusal({"replay(false) was called", "replay(true)"});
  program.optimizer.replay(true);
  program.expect_recovery();

  pass();
  if (program.optimizer.ascend()) pass();
  program.optimizer.descend();
  pass();
  program.expect_refusal({"ascend() was called", "replay(true)"});
}

TEST(PlainLoopRefuses, APassFromBeforeItWasTurnedOn) {
  Program program;
  program.optimizer.replay(false);
  program.model.loss(program.batch).backward();
  program.optimizer.replay(true);
  program.expect_refusal({"not recorded"});
  program.expect_recovery();

  program.optimizer.replay(false);
  program.optimizer.zero_grad();
  const at::Tensor loss = program.model.loss(program.batch);
  program.optimizer.replay(true);
  loss.backward();
  program.expect_refusal({"not a recorded operator", "replay(true)"});
  program.expect_recovery();
}

TEST(PlainLoopRefuses, AParameterThatWasAddedBetweenBackwardAndStep) {
  Net model;
  const Batch batch = Program::seeded();
  SAM<SGD> optimizer(model.second->parameters(), SGDOptions(0.1));
  model.loss(batch).backward();
  optimizer.add_param_group(torch::optim::OptimizerParamGroup(model.first->parameters()));
  const std::string message = message_of([&] { optimizer.step(); });
  EXPECT_NE(message, "");
  EXPECT_EQ(optimizer.steps(), 0);
}

}  // namespace
}  // namespace steppe::plain_loops
