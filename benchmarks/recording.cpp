// Loops without a closure: what the recording of their passes costs, and a step that replays them.
// SPDX-License-Identifier: MIT
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>

#include "command_line.hpp"
#include "counted_allocations.hpp"
#include "interval.hpp"
#include "models.hpp"
#include "parameter_list.hpp"
#include "rounds.hpp"
#include "seconds.hpp"

namespace {

using namespace benchmarks;
using torch::optim::SGD;
using torch::optim::SGDOptions;
using Sam = steppe::SAM<SGD>;

/// A model by its name, with a batch of random data.
struct Problem {
  std::shared_ptr<torch::nn::Module> model;
  std::function<at::Tensor()> output;
  at::Tensor labels;
};

constexpr int64_t kClasses = 10;

Problem perceptron(int64_t batch) {
  torch::nn::Sequential layers;
  for (const Shape& shape : mlp().shapes)
    if (shape.size() == 2) layers->push_back(torch::nn::Linear(shape[1], shape[0]));
  const at::Tensor input = at::randn({batch, mlp().shapes.front()[1]});
  Problem problem;
  problem.model = layers.ptr();
  problem.output = [layers, input]() mutable {
    at::Tensor x = input;
    for (size_t i = 0; i < layers->size(); ++i) {
      if (i > 0) x = at::relu(x);
      x = layers->at<torch::nn::LinearImpl>(i).forward(x);
    }
    return x;
  };
  return problem;
}

Problem problem_named(const std::string& name, int64_t batch) {
  constexpr int64_t kSide = 32;
  Problem problem;
  if (name == "mlp") {
    problem = perceptron(batch);
  } else {
    cifar::ResNet model = cifar::make_model(name, kClasses, 1);
    const at::Tensor images = at::randn({batch, 3, kSide, kSide});
    problem.model = model.ptr();
    problem.output = [model, images]() mutable { return model->forward(images); };
  }
  problem.labels = at::randint(kClasses, {batch}, at::TensorOptions().dtype(at::kLong));
  return problem;
}

SGDOptions options() { return SGDOptions(0.01).momentum(0.9); }

/// Makes steps whose time and memory are measured. Nothing is recorded outside of begin() and end().
class Contestant {
 public:
  Contestant(std::string name, Problem problem) : name_(std::move(name)), problem_(std::move(problem)) {}
  virtual ~Contestant() = default;

  const std::string& name() const { return name_; }
  virtual void begin() {}
  virtual void step() = 0;
  virtual void end() {}

 protected:
  template <class Optimizer>
  at::Tensor pass(Optimizer& optimizer) {
    optimizer.zero_grad();
    const at::Tensor output = problem_.output();
    at::Tensor loss = at::cross_entropy_loss(output, problem_.labels);
    loss.backward();
    return loss;
  }

  Problem& problem() { return problem_; }

 private:
  std::string name_;
  Problem problem_;
};

class PlainSgd : public Contestant {
 public:
  explicit PlainSgd(Problem problem)
      : Contestant("sgd", std::move(problem)), optimizer_(this->problem().model->parameters(), options()) {}
  void step() override {
    const at::Tensor loss = pass(optimizer_);
    optimizer_.step();
  }

 private:
  SGD optimizer_;
};

/// With a radius of 0 the step is the base's own, and the difference is the cost of the recording.
class WithoutAClosure : public Contestant {
 public:
  WithoutAClosure(std::string name, Problem problem, double rho)
      : Contestant(std::move(name), std::move(problem)),
        optimizer_(*this->problem().model, options(), steppe::Options().rho(rho)) {
    optimizer_.replay(steppe::Verify::Never);
    optimizer_.replay(false);
  }
  void begin() override { optimizer_.replay(true); }
  void step() override {
    const at::Tensor loss = pass(optimizer_);
    optimizer_.step();
  }
  void end() override { optimizer_.replay(false); }

 private:
  Sam optimizer_;
};

class WithAClosure : public Contestant {
 public:
  explicit WithAClosure(Problem problem)
      : Contestant("closure", std::move(problem)), optimizer_(*this->problem().model, options()) {
    optimizer_.replay(false);
  }
  void step() override {
    optimizer_.step([this] { return pass(optimizer_); });
  }

 private:
  Sam optimizer_;
};

enum Place : size_t { kSgd, kRecorded, kClosure, kPlainLoop };

std::vector<std::unique_ptr<Contestant>> contestants(const std::string& model, int64_t batch) {
  std::vector<std::unique_ptr<Contestant>> all(4);
  all[kSgd] = std::make_unique<PlainSgd>(problem_named(model, batch));
  all[kRecorded] = std::make_unique<WithoutAClosure>("recorded", problem_named(model, batch), 0.0);
  all[kClosure] = std::make_unique<WithAClosure>(problem_named(model, batch));
  all[kPlainLoop] = std::make_unique<WithoutAClosure>("plain_loop", problem_named(model, batch), 0.05);
  return all;
}

/// The mean of `steps` steps, after one that is not counted.
double seconds_of(Contestant& contestant, int steps) {
  contestant.begin();
  contestant.step();
  const double before = seconds_now();
  for (int i = 0; i < steps; ++i) contestant.step();
  const double seconds = (seconds_now() - before) / steps;
  contestant.end();
  return seconds;
}

/// Of a later step, on all threads.
int64_t peak_of(Contestant& contestant) {
  contestant.begin();
  contestant.step();
  int64_t peak = 0;
  {
    const CountedAllocations counted;
    contestant.step();
    peak = counted.so_far().peak;
  }
  contestant.end();
  return peak;
}

void print_ratio(const std::string& what, const std::string& model, const Interval& ratio, double target) {
  std::printf("ratio %s@%s %.5f %.5f %.5f", what.c_str(), model.c_str(), ratio.median, ratio.low, ratio.high);
  if (target > 0.0) std::printf("  (target <= %.2f, %s)", target, ratio.median <= target ? "met" : "missed");
  std::printf("\n");
}

void print_peaks(const std::string& what, const std::string& model, int64_t left, int64_t right, double target) {
  const double ratio = static_cast<double>(left) / static_cast<double>(right);
  std::printf("peak %s@%s %.5f  %" PRId64 " over %" PRId64 " bytes", what.c_str(), model.c_str(), ratio, left, right);
  if (target > 0.0) std::printf("  (target <= %.2f, %s)", target, ratio <= target ? "met" : "missed");
  std::printf("\n");
}

void run(const std::string& model, int64_t batch, const RoundLimits& limits) {
  const std::vector<std::unique_ptr<Contestant>> all = contestants(model, batch);
  std::fprintf(stderr, "%s: batches of %d\n", model.c_str(), static_cast<int>(batch));
  std::vector<int> steps;
  for (const auto& one : all) {
    constexpr double kSample = 0.2;  // seconds that a sample should take
    constexpr double kMost = 200.0;
    steps.push_back(static_cast<int>(std::clamp(kSample / seconds_of(*one, 1), 1.0, kMost)));
  }
  Samples samples(all.size());
  for_rounds(all.size(), limits, [&](size_t i) { samples[i].push_back(seconds_of(*all[i], steps[i])); });

  std::printf("\n%s, batches of %d: medians of %zu rounds, in ms\n", model.c_str(), static_cast<int>(batch),
              samples.front().size());
  for (size_t i = 0; i < all.size(); ++i)
    std::printf("  %-12s %10.3f\n", all[i]->name().c_str(), 1e3 * benchmarks::median_of(samples[i]));
  const double target = model == "resnet18" ? 1.01 : 0.0;
  print_ratio("recorded/sgd", model, ratio_of(samples[kRecorded], samples[kSgd]), target);
  print_ratio("plain_loop/closure", model, ratio_of(samples[kPlainLoop], samples[kClosure]), 0.0);
  std::vector<int64_t> peaks;
  for (const auto& one : all) peaks.push_back(peak_of(*one));
  print_peaks("recorded/sgd", model, peaks[kRecorded], peaks[kSgd], 0.0);
  print_peaks("plain_loop/closure", model, peaks[kPlainLoop], peaks[kClosure], 1.02);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int64_t kQuickBatch = 4;
  constexpr int kQuickRounds = 3;
  constexpr double kQuickSeconds = 8.0;
  Settings settings;
  int64_t batch = 128;
  std::vector<std::string> models = {"mlp", "resnet20", "resnet18"};
  CLI::App app("Times loops without a closure, and counts their memory, on random data.", "steppe-benchmark-recording");
  add_options(app, settings);
  app.add_option("--batch", batch, "Samples per step (default: 128, quick: 4)")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--model", models, "mlp, resnet20, resnet18 (default: all)")
      ->type_name("NAME ...")
      ->check(CLI::IsMember({"mlp", "resnet20", "resnet18"}).description(""));
  CLI11_PARSE(app, argc, argv);
  try {
    if (!prepare(settings)) return 1;
    if (settings.quick && app.count("--batch") == 0) batch = kQuickBatch;
    for (const std::string& model : models) {
      RoundLimits limits;
      limits.rounds = settings.quick ? std::min(settings.rounds, kQuickRounds) : settings.rounds;
      if (settings.quick) limits.deadline = seconds_now() + kQuickSeconds;
      run(model, batch, limits);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "steppe-benchmark-recording: %s\n", error.what());
    return 1;
  }
  return 0;
}
