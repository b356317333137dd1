// Programs with several networks, optimizers or losses: which backward pass belongs to which.
// SPDX-License-Identifier: MIT
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <steppe/step/buffers_guard.hpp>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "loop.hpp"

namespace steppe::plain_loops {
namespace {

using torch::optim::Adam;
using torch::optim::AdamOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

template <class Optimizer, class = void>
struct IsOurs : std::false_type {};
template <class Optimizer>
struct IsOurs<Optimizer, std::void_t<decltype(std::declval<Optimizer&>().report())>> : std::true_type {};

/// LibTorch's Adam, made as ours is.
class PlainAdam : public Adam {
 public:
  PlainAdam(const torch::nn::Module& model, const AdamOptions& options) : Adam(model.parameters(), options) {}
};

// Adversaries.

class Generator : public torch::nn::Module {
 public:
  Generator() {
    first = register_module("first", torch::nn::Linear(4, 12));
    norm = register_module("norm", torch::nn::BatchNorm1d(12));
    second = register_module("second", torch::nn::Linear(12, 6));
  }
  at::Tensor forward(const at::Tensor& noise) {
    at::Tensor hidden = norm(first(noise));
    return second(torch::relu_(hidden)).tanh();
  }

  torch::nn::Linear first{nullptr}, second{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
};

class Discriminator : public torch::nn::Module {
 public:
  explicit Discriminator(bool normalizes) {
    first = register_module("first", torch::nn::Linear(6, 12));
    if (normalizes) norm = register_module("norm", torch::nn::BatchNorm1d(12));
    drop = register_module("drop", torch::nn::Dropout(0.3));
    second = register_module("second", torch::nn::Linear(12, 1));
  }
  at::Tensor forward(at::Tensor x) {
    x = first(x);
    if (norm) x = norm(x);
    return second(drop(torch::leaky_relu_(x, 0.2)));
  }

  torch::nn::Linear first{nullptr}, second{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Dropout drop{nullptr};
};

at::Tensor verdict(const at::Tensor& logits, double wanted) {
  return torch::binary_cross_entropy_with_logits(logits, torch::full_like(logits, wanted));
}

/// One step, of LibTorch's own optimizers without a closure in any case.
template <class Optimizer, class Pass>
void step_any(Way way, Optimizer& optimizer, Trace& trace, Pass&& pass) {
  if constexpr (IsOurs<Optimizer>::value) {
    const at::Tensor loss = step(way, optimizer, pass);
    trace.add(loss, optimizer.report());
  } else {
    optimizer.zero_grad();
    trace.add("loss", pass());
    optimizer.step();
  }
}

/// As in the tutorials: the generator's forward pass comes before the discriminator's step, and serves both.
template <class OptimizerG, class OptimizerD>
Trace train_adversaries(Way way, bool normalizes) {
  Generator generator;
  Discriminator discriminator(normalizes);
  OptimizerG of_generator(generator, AdamOptions(0.01));
  OptimizerD of_discriminator(discriminator, AdamOptions(0.01));
  Trace trace;
  for (int i = 0; i < kSteps; ++i) {
    const at::Tensor real = torch::randn({8, 6}) + 1, noise = torch::randn({8, 4});
    at::Tensor fake;
    {
      std::optional<step::BuffersGuard> guard;  // a closure makes the pass of the generator's own step itself
      if (IsOurs<OptimizerG>::value && way == Way::Closure) guard.emplace(generator.buffers());
      fake = generator.forward(noise);
    }
    step_any(way, of_discriminator, trace, [&] {
      const at::Tensor on_real = verdict(discriminator.forward(real), 0.9);
      on_real.backward();
      const at::Tensor on_fake = verdict(discriminator.forward(fake.detach()), 0.0);
      on_fake.backward();
      return on_real + on_fake;
    });
    step_any(way, of_generator, trace, [&] {
      const bool again = IsOurs<OptimizerG>::value && way == Way::Closure;
      at::Tensor loss = verdict(discriminator.forward(again ? generator.forward(noise) : fake), 1.0);
      loss.backward();
      return loss;
    });
  }
  trace.add(generator);
  for (const auto& param : discriminator.named_parameters()) trace.add("parameter " + param.key(), param.value());
  // The number of batches is a constant of the generator's step: a closure counts both of its passes.
  for (const auto& buffer : discriminator.named_buffers())
    if (buffer.value().is_floating_point()) trace.add("buffer " + buffer.key(), buffer.value());
  return trace;
}

TEST(PlainLoop, OfTwoAdversariesIsThatWithClosures) {
  for (const bool normalizes : {false, true})
    expect_same_in_both_ways([&](Way way) { return train_adversaries<SAM<Adam>, SAM<Adam>>(way, normalizes); });
}

TEST(PlainLoop, OfAnAdversaryWhoseOpponentHasAPlainOptimizerIsThatWithAClosure) {
  for (const bool normalizes : {false, true}) {
    expect_same_in_both_ways([&](Way way) { return train_adversaries<SAM<Adam>, PlainAdam>(way, normalizes); });
    expect_same_in_both_ways([&](Way way) { return train_adversaries<PlainAdam, SAM<Adam>>(way, normalizes); });
  }
}

TEST(PlainLoop, TrainsADiscriminatorSeveralTimesForEachStepOfTheGenerator) {
  expect_same_in_both_ways([](Way way) {
    Generator generator;
    Discriminator discriminator(false);
    SAM<Adam> of_generator(generator, AdamOptions(0.01)), of_discriminator(discriminator, AdamOptions(0.01));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      for (int k = 0; k < 3; ++k) {
        const at::Tensor real = torch::randn({8, 6}) + 1, noise = torch::randn({8, 4});
        at::Tensor fake;
        {
          const c10::NoGradGuard no_grad;
          fake = generator.forward(noise);
        }
        step_any(way, of_discriminator, trace, [&] {
          at::Tensor loss = discriminator.forward(fake).mean() - discriminator.forward(real).mean();
          loss.backward();
          return loss;
        });
        const c10::NoGradGuard no_grad;
        for (at::Tensor& param : discriminator.parameters()) param.clamp_(-0.3, 0.3);
      }
      const at::Tensor noise = torch::randn({8, 4});
      step_any(way, of_generator, trace, [&] {
        at::Tensor loss = -discriminator.forward(generator.forward(noise)).mean();
        loss.backward();
        return loss;
      });
    }
    trace.add(generator);
    trace.add(discriminator);
    return trace;
  });
}

// Actors and critics.

class ActorCritic : public torch::nn::Module {
 public:
  ActorCritic() {
    trunk = register_module("trunk", torch::nn::Linear(6, 12));
    policy = register_module("policy", torch::nn::Linear(12, 3));
    value = register_module("value", torch::nn::Linear(12, 1));
  }
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& states) {
    const at::Tensor hidden = trunk(states).tanh();
    return {torch::log_softmax(policy(hidden), 1), value(hidden).squeeze(1)};
  }

  torch::nn::Linear trunk{nullptr}, policy{nullptr}, value{nullptr};
};

enum class Backward { Sum, Two };

at::Tensor go_back(const at::Tensor& policy_loss, const at::Tensor& value_loss, Backward how) {
  if (how == Backward::Sum) {
    at::Tensor loss = policy_loss + 0.5 * value_loss;
    loss.backward();
    return loss;
  }
  policy_loss.backward({}, /*retain_graph=*/true);
  value_loss.backward();
  return policy_loss + value_loss;
}

TEST(PlainLoop, OfAnActorAndItsCriticIsThatWithAClosure) {
  for (const Backward how : {Backward::Sum, Backward::Two}) {
    expect_same_in_both_ways([&](Way way) {
      ActorCritic model;
      SAM<Adam> optimizer(model, AdamOptions(0.01));
      Trace trace;
      for (int i = 0; i < kSteps; ++i) {
        const at::Tensor states = torch::randn({10, 6}), returns = torch::randn({10});
        const at::Tensor actions = torch::randint(3, {10}, at::kLong);
        const at::Tensor loss = step(way, optimizer, [&] {
          const auto [log_policy, value] = model.forward(states);
          const at::Tensor advantage = returns - value.detach();
          const at::Tensor chosen = log_policy.gather(1, actions.unsqueeze(1)).squeeze(1);
          return go_back(-(chosen * advantage).mean(), (returns - value).square().mean(), how);
        });
        trace.add(loss, optimizer.report());
      }
      trace.add(model);
      return trace;
    });
  }
}

TEST(PlainLoop, ActsByChanceWithinTheStep) {
  expect_same_in_both_ways([](Way way) {
    ActorCritic model;
    SAM<Adam> optimizer(model, AdamOptions(0.05), Options().rho(0.5));
    const at::Tensor rewards = torch::randn({3});
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor states = torch::randn({10, 6});
      const at::Tensor loss = step(way, optimizer, [&] {
        const auto [log_policy, value] = model.forward(states);
        const at::Tensor actions = log_policy.exp().multinomial(1);
        const at::Tensor returns = rewards.index_select(0, actions.squeeze(1));
        const at::Tensor chosen = log_policy.gather(1, actions).squeeze(1);
        return go_back(-(chosen * (returns - value.detach())).mean(), (returns - value).square().mean(), Backward::Sum);
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, TakesWhatWasPlayedBeforeTheIterationForData) {
  expect_same_in_both_ways([](Way way) {
    ActorCritic model;
    SAM<Adam> optimizer(model, AdamOptions(0.05), Options().rho(0.5));
    Trace trace;
    for (int round = 0; round < 3; ++round) {
      at::Tensor states = torch::randn({10, 6}), actions, old_policy, returns;
      {
        const c10::NoGradGuard no_grad;
        const auto [log_policy, value] = model.forward(states);
        actions = log_policy.exp().multinomial(1);
        old_policy = log_policy.gather(1, actions);
        returns = torch::randn({10}) + value;
      }
      for (int epoch = 0; epoch < 3; ++epoch) {
        const at::Tensor loss = step(way, optimizer, [&] {
          const auto [log_policy, value] = model.forward(states);
          const at::Tensor ratio = (log_policy.gather(1, actions) - old_policy).exp().squeeze(1);
          const at::Tensor advantage = returns - value.detach();
          const at::Tensor gain = torch::min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage);
          return go_back(-gain.mean(), (returns - value).square().mean(), Backward::Sum);
        });
        trace.add(loss, optimizer.report());
      }
    }
    trace.add(model);
    return trace;
  });
}

// One network, several losses or optimizers.

TEST(PlainLoop, GoesBackFromTwoLossesOfOneForwardPass) {
  for (const bool added : {false, true}) {
    expect_same_in_both_ways([&](Way way) {
      Net model;
      SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9), Options().rho(0.2));
      Trace trace;
      for (int i = 0; i < kSteps; ++i) {
        const Batch batch = Batch::draw();
        const at::Tensor loss = step(way, optimizer, [&] {
          const at::Tensor output = model.forward(batch.inputs);
          const at::Tensor likelihood = torch::cross_entropy_loss(output, batch.targets);
          const at::Tensor size = 0.1 * output.square().mean();
          const at::Tensor decay = 1e-2 * model.second->weight.square().sum();
          if (added) {
            at::Tensor sum = likelihood + size + decay;
            sum.backward();
            return sum;
          }
          likelihood.backward({}, /*retain_graph=*/true);
          size.backward();
          decay.backward();
          return likelihood + size + decay;
        });
        trace.add(loss, optimizer.report());
      }
      trace.add(model);
      return trace;
    });
  }
}

TEST(PlainLoop, GoesBackFromSeveralElementsWithAGradientOfTheirOwn) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9), Options().rho(0.2));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const Batch batch = Batch::draw();
      const at::Tensor weights = torch::rand({8, 3});
      step(way, optimizer, [&] {
        const at::Tensor output = model.forward(batch.inputs);
        output.backward(weights, /*retain_graph=*/true);
        output.square().sum(1).backward(output.detach().sum(1));  // a gradient that depends on the weights
        return at::Tensor();
      });
      trace.add("first weight", model.first->weight);
      trace.add({}, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, OfTwoOptimizersThatTakeTurnsOverOneNetIsThatWithClosures) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    SAM<SGD> of_body(model.first->parameters(), SGDOptions(0.1).momentum(0.9), Options().rho(0.2));
    SAM<Adam> of_head(model.second->parameters(), AdamOptions(0.01), Options().rho(0.2));
    of_body.attach(model);
    of_head.attach(model);
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const Batch batch = Batch::draw();
      const auto pass = [&] {
        at::Tensor loss = model.loss(batch);
        loss.backward();
        return loss;
      };
      const at::Tensor of_first = step(way, of_body, pass);
      trace.add(of_first, of_body.report());
      const at::Tensor of_second = step(way, of_head, pass);
      trace.add(of_second, of_head.report());
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, TrainsAPartOfANetWhoseRestHasGradientsToo) {
  for (const bool trains_head : {true, false}) {
    expect_same_in_both_ways([&](Way way) {
      Net model;
      SAM<SGD> optimizer(trains_head ? model.second->parameters() : model.first->parameters(),
                         SGDOptions(0.1).momentum(0.9), Options().rho(0.2));
      optimizer.attach(model);
      Trace trace;
      for (int i = 0; i < kSteps; ++i) {
        const Batch batch = Batch::draw();
        const at::Tensor loss = step(way, optimizer, [&] {
          at::Tensor value = model.loss(batch);
          value.backward();
          return value;
        });
        trace.add(loss, optimizer.report());
      }
      trace.add(model);
      return trace;
    });
  }
}

// Teachers.

TEST(PlainLoop, MakesATargetOfItsOwnWithinTheStepAgain) {
  for (const bool in_evaluation_mode : {false, true}) {
    expect_same_in_both_ways([&](Way way) {
      Net model;
      SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9), Options().rho(0.5));
      Trace trace;
      for (int i = 0; i < kSteps; ++i) {
        const at::Tensor inputs = torch::randn({8, 6});
        const at::Tensor loss = step(way, optimizer, [&] {
          at::Tensor target;
          {
            const c10::NoGradGuard no_grad;
            if (in_evaluation_mode) model.eval();
            target = torch::softmax(model.forward(inputs) * 2, 1);
            model.train();
          }
          const at::Tensor output = torch::log_softmax(model.forward(inputs + 0.1 * torch::randn({8, 6})), 1);
          at::Tensor value = -(target * output).sum(1).mean();
          value.backward();
          return value;
        });
        trace.add(loss, optimizer.report());
      }
      trace.add(model);
      return trace;
    });
  }
}

/// How a teacher follows.
enum class Following { InPlace, CopiedWhole, NewTensors, ByData };

Trace train_with_teacher(Way way, Following following, bool through_base, bool made_first) {
  Net model, teacher;
  std::vector<at::Tensor> averages;
  const auto begin = [&] {
    const c10::NoGradGuard no_grad;
    averages.clear();
    for (size_t i = 0; i < model.parameters().size(); ++i) {
      teacher.parameters()[i].copy_(model.parameters()[i]);
      averages.push_back(model.parameters()[i] * 1.0);
    }
    for (at::Tensor& param : teacher.parameters()) param.requires_grad_(false);
  };
  if (made_first) begin();
  SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9), Options().rho(0.5));
  if (!made_first) begin();
  torch::optim::Optimizer& base = optimizer;
  Trace trace;
  for (int i = 0; i < kSteps; ++i) {
    const Batch batch = Batch::draw();
    const auto pass = [&] {
      const at::Tensor wanted = teacher.second->forward(teacher.first->forward(batch.inputs).tanh());
      const at::Tensor output = model.forward(batch.inputs);
      at::Tensor value = torch::cross_entropy_loss(output, batch.targets) + (output - wanted).square().mean();
      for (size_t k = 0; following == Following::NewTensors && k < averages.size(); ++k)
        value = value + 0.1 * (model.parameters()[k] - averages[k]).square().sum();
      value.backward();
      return value;
    };
    at::Tensor loss;
    if (through_base && way == Way::Plain) {
      base.zero_grad();
      pass();
      loss = base.step();
    } else {
      loss = step(way, optimizer, pass);
    }
    trace.add(loss, optimizer.report());
    const c10::NoGradGuard no_grad;
    for (size_t k = 0; k < averages.size(); ++k) {
      at::Tensor own = teacher.parameters()[k];
      const at::Tensor student = model.parameters()[k];
      if (following == Following::InPlace) own.mul_(0.9).add_(student, 0.1);
      if (following == Following::CopiedWhole) own.copy_(0.9 * own + 0.1 * student);
      if (following == Following::ByData) own.data().mul_(0.9).add_(student.data(), 0.1);
      if (following == Following::NewTensors) averages[k] = 0.9 * averages[k] + 0.1 * student;
    }
  }
  trace.add(model);
  trace.add(teacher);
  return trace;
}

TEST(PlainLoop, TakesATeacherThatFollowsTheModelForConstant) {
  for (const bool made_first : {true, false})
    for (const Following following :
         {Following::InPlace, Following::CopiedWhole, Following::NewTensors, Following::ByData}) {
      SCOPED_TRACE(testing::Message() << "following " << static_cast<int>(following) << ", made first " << made_first);
      expect_same_in_both_ways([&](Way way) { return train_with_teacher(way, following, false, made_first); });
    }
}

TEST(PlainLoop, TakesATeacherForConstantAlsoThroughTheBaseClass) {
  for (const Following following :
       {Following::InPlace, Following::CopiedWhole, Following::NewTensors, Following::ByData}) {
    SCOPED_TRACE(testing::Message() << "following " << static_cast<int>(following));
    expect_same_in_both_ways([&](Way way) { return train_with_teacher(way, following, true, true); });
  }
}

TEST(PlainLoop, StaysCloseToWhereItBegan) {
  for (const bool in_evaluation_mode : {false, true}) {
    expect_same_in_both_ways([&](Way way) {
      Net model;
      SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9), Options().rho(0.5));
      std::vector<at::Tensor> start;
      for (const at::Tensor& param : model.parameters()) start.push_back(param.detach().clone());
      const at::Tensor inputs = torch::randn({8, 6});
      at::Tensor wanted;
      {
        const c10::NoGradGuard no_grad;
        if (in_evaluation_mode) model.eval();
        wanted = model.forward(inputs);  // the output of the untrained model is to be kept
        model.train();
      }
      Trace trace;
      for (int i = 0; i < kSteps; ++i) {
        const Batch batch = Batch::draw();
        const at::Tensor loss = step(way, optimizer, [&] {
          at::Tensor value = model.loss(batch) + (model.forward(inputs) - wanted).square().mean();
          for (size_t k = 0; k < start.size(); ++k) value = value + (model.parameters()[k] - start[k]).square().sum();
          value.backward();
          return value;
        });
        trace.add(loss, optimizer.report());
      }
      trace.add(model);
      return trace;
    });
  }
}

}  // namespace
}  // namespace steppe::plain_loops
