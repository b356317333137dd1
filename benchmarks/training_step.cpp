// Whole training steps: how much of one is neither the model's passes nor the base optimizer's step, what a step of
// each method costs over the base's, and what the base's own step costs.
// SPDX-License-Identifier: MIT
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>
#include <steppe/tensorized/norm_deviation.hpp>

#include "base_step.hpp"
#include "command_line.hpp"
#include "interval.hpp"
#include "models.hpp"
#include "rounds.hpp"
#include "seconds.hpp"

namespace {

using namespace benchmarks;
using torch::optim::SGD;
using torch::optim::SGDOptions;

struct Batch {
  at::Tensor images, labels;
};

Batch random_batch(int64_t size) {
  constexpr int64_t kClasses = 10, kSide = 32;
  return {at::randn({size, 3, kSide, kSide}), at::randint(kClasses, {size}, at::TensorOptions().dtype(at::kLong))};
}

/// Seconds of one step, of the passes in it, and of the plain base step over the same parameters.
struct Step {
  double whole, passes, base;

  double wrapper() const { return whole - passes - base; }
  double share() const { return wrapper() / whole; }
};

/// "resnet20-tr" is ResNet-20 with its blocks' convolutions as tensor rings of a third of their parameters.
cifar::ResNet model_named(const std::string& name) {
  const size_t dash = name.find('-');
  if (dash == std::string::npos) return cifar::make_model(name, 10, 1);
  constexpr double kCompression = 3.0;
  return cifar::make_model(name.substr(0, dash), 10, 1, name.substr(dash + 1), kCompression);
}

/// A model with two optimizers over it: the base alone, and the one that is measured over the same base.
class Trainee {
 public:
  using MakeOptimizer = std::function<std::unique_ptr<torch::optim::Optimizer>(cifar::ResNet& model)>;

  Trainee(const std::string& model, Batch batch, const MakeOptimizer& make)
      : model_(model_named(model)),
        batch_(std::move(batch)),
        base_(model_->parameters(), options()),
        optimizer_(make(model_)) {}

  static SGDOptions options() { return SGDOptions(0.01).momentum(0.9); }

  /// Seconds of a whole step of the base.
  double base_step() {
    const double before = seconds_now();
    pass();
    base_.step();
    return seconds_now() - before;
  }

  /// Mean seconds of the optimizer's steps over one cycle of its plain and perturbed ones.
  double mean_of_cycle(int64_t steps) {
    const double before = seconds_now();
    for (int64_t i = 0; i < steps; ++i) optimizer_->step([&] { return pass(); });
    return (seconds_now() - before) / static_cast<double>(steps);
  }

  torch::optim::Optimizer& optimizer() { return *optimizer_; }

  Step step() {
    Step step{};
    pass();
    const double before_base = seconds_now();
    base_.step();
    step.base = seconds_now() - before_base;

    const double before = seconds_now();
    optimizer_->step([&] {
      const double before_pass = seconds_now();
      at::Tensor loss = pass();
      step.passes += seconds_now() - before_pass;
      return loss;
    });
    step.whole = seconds_now() - before;
    return step;
  }

 private:
  at::Tensor pass() {
    model_->zero_grad();
    at::Tensor loss = at::cross_entropy_loss(model_->forward(batch_.images), batch_.labels);
    loss.backward();
    return loss;
  }

  cifar::ResNet model_;
  Batch batch_;
  SGD base_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
};

template <class Optimizer>
std::unique_ptr<torch::optim::Optimizer> over_sgd(cifar::ResNet& model) {
  return std::make_unique<Optimizer>(*model, Trainee::options());
}

/// Each layer's cores in a group, all other parameters in one that is not scaled.
std::unique_ptr<torch::optim::Optimizer> das_over_sgd(cifar::ResNet& model) {
  std::vector<torch::optim::OptimizerParamGroup> groups;
  std::unordered_set<const void*> in_layers;
  for (const std::vector<at::Tensor>& cores : cifar::cores_of(*model)) {
    groups.emplace_back(cores);
    for (const at::Tensor& core : cores) in_layers.insert(core.unsafeGetTensorImpl());
  }
  const size_t layers = groups.size();
  std::vector<at::Tensor> others;
  for (const at::Tensor& param : model->parameters())
    if (in_layers.count(param.unsafeGetTensorImpl()) == 0) others.push_back(param);
  groups.emplace_back(others);
  auto optimizer = std::make_unique<steppe::DAS<SGD>>(groups, Trainee::options());
  optimizer->scaling(layers).alpha(0.0);
  return optimizer;
}

/// SGD in which every step's norm deviations are recorded.
class Monitored : public SGD {
 public:
  explicit Monitored(cifar::ResNet& model)
      : SGD(model->parameters(), Trainee::options()), monitor_(cifar::cores_of(*model)) {}

  at::Tensor step(LossClosure closure) override {
    return SGD::step([&] {
      at::Tensor loss = closure();
      monitor_.record();
      return loss;
    });
  }

 private:
  steppe::tensorized::DeviationMonitor monitor_;
};

struct Contestant {
  std::string name;
  double target;  ///< of the share; 0: none is set
  Trainee trainee;
  std::vector<Step> steps;
};

std::vector<std::unique_ptr<Contestant>> contestants(const std::string& model, int64_t batch_size) {
  const Batch batch = random_batch(batch_size);
  const auto one = [&](const char* name, double target, const Trainee::MakeOptimizer& make) {
    return std::unique_ptr<Contestant>(new Contestant{name, target, Trainee(model, batch, make), {}});
  };
  std::vector<std::unique_ptr<Contestant>> all;
  if (model.find('-') != std::string::npos) {
    all.push_back(one("sam", 0.0, over_sgd<steppe::SAM<SGD>>));
    all.push_back(one("das", 0.0, das_over_sgd));
    all.push_back(one("monitor", 0.0, [](cifar::ResNet& made) { return std::make_unique<Monitored>(made); }));
    return all;
  }
  all.push_back(one("sam", 0.005, over_sgd<steppe::SAM<SGD>>));
  all.push_back(one("gcsam", 0.005, over_sgd<steppe::GCSAM<SGD>>));
  all.push_back(one("zsharp", 0.01, over_sgd<steppe::ZSharp<SGD>>));
  return all;
}

double median_of(const std::vector<Step>& steps, const std::function<double(const Step&)>& value) {
  std::vector<double> values;
  for (const Step& step : steps) values.push_back(value(step));
  return benchmarks::median_of(values);
}

void print(const std::string& model, const std::vector<std::unique_ptr<Contestant>>& all) {
  std::printf("\n%s: medians of %zu rounds, in ms\n  %-10s %10s %10s %10s %10s\n", model.c_str(),
              all.front()->steps.size(), "method", "step", "passes", "base step", "the rest");
  for (const auto& one : all)
    std::printf("  %-10s %10.2f %10.2f %10.3f %10.3f\n", one->name.c_str(),
                1e3 * median_of(one->steps, [](const Step& step) { return step.whole; }),
                1e3 * median_of(one->steps, [](const Step& step) { return step.passes; }),
                1e3 * median_of(one->steps, [](const Step& step) { return step.base; }),
                1e3 * median_of(one->steps, [](const Step& step) { return step.wrapper(); }));
  for (const auto& one : all) {
    std::vector<double> shares;
    for (const Step& step : one->steps) shares.push_back(step.share());
    const Interval share = interval_of(shares);
    if (model == "resnet18")
      std::printf("  share of %s: %.3f %%, target <= %.1f %%, %s\n", one->name.c_str(), 1e2 * share.median,
                  1e2 * one->target, share.median <= one->target ? "met" : "missed");
    std::printf("share %s@%s %.6f %.6f %.6f\n", one->name.c_str(), model.c_str(), share.median, share.low, share.high);
  }
  std::fflush(stdout);
}

void run(const std::string& model, int64_t batch, const RoundLimits& limits) {
  const std::vector<std::unique_ptr<Contestant>> all = contestants(model, batch);
  std::fprintf(stderr, "%s: batches of %d images\n", model.c_str(), static_cast<int>(batch));
  // Memory is allocated, momentum starts.
  for (const auto& one : all) one->trainee.step();
  for_rounds(all.size(), limits, [&](size_t i) { all[i]->steps.push_back(all[i]->trainee.step()); });
  print(model, all);
}

/// A method near the base's cost, or with two passes: the ratio of its step to the base's.
struct Member {
  std::string name;
  double target;      ///< of the ratio; 0: none is set
  int64_t cycle = 1;  ///< steps after which the pattern of plain and perturbed ones repeats
  Trainee::MakeOptimizer make;
  std::function<void(torch::optim::Optimizer&)> before_cycle = [](torch::optim::Optimizer&) {};
};

/// The tail as the last three of the next ten steps.
void begin_tail(torch::optim::Optimizer& optimizer) {
  auto& tail = static_cast<steppe::Tail<SGD>&>(optimizer);
  const int64_t total = tail.steps() + 10;
  tail.policy().total(total).share(3.0 / static_cast<double>(total));
}

std::vector<Member> family() {
  const auto every_10 = [](cifar::ResNet& model) {
    auto sam = std::make_unique<steppe::SAM<SGD>>(*model, Trainee::options());
    sam->every(10);
    return sam;
  };
  return {{"msam", 1.02, 1, over_sgd<steppe::MSAM<SGD>>},
          {"s2sam", 0.0, 1, over_sgd<steppe::S2SAM<SGD>>},
          {"sam_every_10", 0.0, 10, every_10},
          {"looksam_5", 1.25, 5, over_sgd<steppe::LookSAM<SGD>>},
          {"tail_0.3", 1.32, 10, over_sgd<steppe::Tail<SGD>>, begin_tail},
          {"sam", 0.0, 1, over_sgd<steppe::SAM<SGD>>},
          {"friendly", 0.0, 1, over_sgd<steppe::FriendlySAM<SGD>>},
          {"vasso", 0.0, 1, over_sgd<steppe::VaSSO<SGD>>},
          {"gsam", 0.0, 1, over_sgd<steppe::GSAM<SGD>>},
          {"wsam", 0.0, 1, over_sgd<steppe::WSAM<SGD>>},
          {"stablesam", 0.0, 1, over_sgd<steppe::StableSAM<SGD>>}};
}

/// Each round times a step of the base just before the method's cycle, over the same model and batch.
void compare_family(const std::string& model, int64_t batch_size, const RoundLimits& limits) {
  const Batch batch = random_batch(batch_size);
  std::fprintf(stderr, "%s: batches of %d images\n", model.c_str(), static_cast<int>(batch_size));
  for (const Member& member : family()) {
    Trainee trainee(model, batch, member.make);
    const auto cycle = [&] {
      member.before_cycle(trainee.optimizer());
      return trainee.mean_of_cycle(member.cycle);
    };
    trainee.base_step();
    cycle();  // memory is allocated, momentum starts
    std::vector<double> ratios;
    for_rounds(1, limits, [&](size_t) {
      const double base = trainee.base_step();
      ratios.push_back(cycle() / base);
    });
    const Interval ratio = interval_of(ratios);
    if (model == "resnet18" && member.target > 0.0)
      std::printf("  %s: %.3f of the base's step, target <= %.2f, %s\n", member.name.c_str(), ratio.median, member.target,
                  ratio.median <= member.target ? "met" : "missed");
    std::printf("ratio %s/sgd@%s %.4f %.4f %.4f\n", member.name.c_str(), model.c_str(), ratio.median, ratio.low,
                ratio.high);
    std::fflush(stdout);
  }
}

void run(const Settings& settings, const std::vector<std::string>& models, int64_t batch, bool of_family) {
  constexpr int kQuickRounds = 3;
  constexpr double kQuickSeconds = 8.0;
  if (settings.quick) std::printf("note             batches of %d: shares are too large\n", static_cast<int>(batch));
  for (const std::string& model : models) {
    RoundLimits limits;
    limits.rounds = settings.quick ? std::min(settings.rounds, kQuickRounds) : settings.rounds;
    if (settings.quick) limits.deadline = seconds_now() + kQuickSeconds;
    of_family ? compare_family(model, batch, limits) : run(model, batch, limits);
  }
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int64_t kQuickBatch = 4;
  Settings settings;
  int64_t batch = 128;
  std::vector<std::string> models = {"resnet20", "resnet18"};
  CLI::App app("Times training steps on random images, base SGD with momentum.", "steppe-benchmark-step");
  add_options(app, settings);
  app.add_option("--batch", batch, "Images per step (default: 128, quick: 4)")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--model", models, "resnet20, resnet18, resnet20-tr, resnet18-tr (default: the first two)")
      ->type_name("NAME ...")
      ->check(CLI::IsMember({"resnet20", "resnet18", "resnet20-tr", "resnet18-tr"}).description(""));
  bool of_family = false;
  app.add_flag("--family", of_family, "Instead, what a step of every method costs over the base's");
  bool of_bases = false;
  app.add_flag("--base", of_bases, "Instead, the base's step alone: LibTorch's class beside steppe::Fused");
  CLI11_PARSE(app, argc, argv);
  try {
    if (!prepare(settings)) return 1;
    if (of_bases) {
      compare_base_steps(settings);
      return 0;
    }
    if (settings.quick && app.count("--batch") == 0) batch = kQuickBatch;
    run(settings, models, batch, of_family);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "steppe-benchmark-step: %s\n", error.what());
    return 1;
  }
  return 0;
}
