// Captures an ascent and whole training steps into CUDA graphs, replays them, and compares them with ordinary steps.
// SPDX-License-Identifier: MIT
#include <torch/torch.h>

#include <steppe/steppe.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "captured.hpp"

namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

constexpr int kNoDevice = 77;  // test drivers count this exit code as skipped
constexpr double kRounding = 1e-5;

/// A graph reads its inputs where they were when it was captured: new ones are copied there.
struct Batch {
  at::Tensor inputs = torch::zeros({256, 20}, at::kCUDA);
  at::Tensor targets = torch::zeros({256}, at::TensorOptions().dtype(at::kLong).device(at::kCUDA));

  void fill(uint64_t seed) {
    torch::manual_seed(seed);
    inputs.copy_(torch::randn({256, 20}));
    targets.copy_(inputs.square().sum(1).gt(20.0).to(at::kLong));
  }
};

torch::nn::Sequential new_model() {
  torch::manual_seed(1);
  torch::nn::Sequential model(torch::nn::Linear(20, 64), torch::nn::BatchNorm1d(64), torch::nn::ReLU(),
                              torch::nn::Linear(64, 2));
  model->to(at::kCUDA);
  return model;
}

double largest_difference(const torch::nn::Module& a, const torch::nn::Module& b) {
  double largest = 0.0;
  const auto compare = [&largest](const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y) {
    for (size_t i = 0; i < x.size(); ++i)
      largest = std::max(largest, (x[i] - y[i]).abs().max().to(at::kDouble).item<double>());
  };
  compare(a.parameters(), b.parameters());
  compare(a.buffers(), b.buffers());
  return largest;
}

bool tell(const std::string& what, double difference) {
  const bool same = difference <= kRounding;
  std::printf("%-34s largest difference %.1e: %s\n", what.c_str(), difference, same ? "ok" : "WRONG");
  return same;
}

/// Ascent and restore alone: the perturbation of gradients that stay in place.
bool replay_an_ascent(c10::cuda::CUDAStream stream) {
  const auto model = new_model();
  std::vector<at::Tensor> weights = model->parameters(), before, gradients, moved, expected;
  for (const at::Tensor& w : weights) {
    before.push_back(w.detach().clone());
    gradients.push_back(torch::randn_like(w));
    moved.push_back(torch::zeros_like(w));
  }
  steppe::AscentGroup group;
  group.params = weights;
  group.gradients = gradients;
  group.rho = 0.5;
  const auto memory = std::make_shared<steppe::PerturbationMemory>();
  const auto ascend_and_restore = [&] {
    const torch::NoGradGuard no_grad;
    const steppe::Perturbation at({group}, memory);
    for (size_t i = 0; i < weights.size(); ++i) moved[i].copy_(weights[i]);
  };
  run_on(stream, ascend_and_restore);
  for (at::Tensor& each : moved) {
    expected.push_back(each.clone());
    each.zero_();
  }
  Captured graph(stream, ascend_and_restore);
  graph.replay();
  bool same = true;
  for (size_t i = 0; i < weights.size(); ++i)
    same = same && moved[i].equal(expected[i]) && weights[i].equal(before[i]) && !expected[i].equal(before[i]);
  std::printf("%-34s %s\n", "ascent and restore", same ? "the same bits: ok" : "WRONG");
  return same;
}

/// One model and its optimizer.
template <class Optimizer, class Options = SGDOptions>
struct Training {
  torch::nn::Sequential model = new_model();
  Optimizer optimizer;
  at::Tensor loss;

  explicit Training(const Options& options = SGDOptions(0.1).momentum(0.9))
      : optimizer(*model, options, steppe::Options().rho(0.1)) {
    optimizer.replay_rng(false);  // a graph cannot reset the generators; nothing here draws numbers
  }

  void step(const Batch& batch) {
    loss = optimizer.step([&] {
      auto mean_loss = torch::cross_entropy_loss(model->forward(batch.inputs), batch.targets);
      mean_loss.backward();
      return mean_loss;
    });
  }
};

/// Closure, ascent, second pass, restore and SGD with momentum as one graph, against the same steps without.
template <class Optimizer>
bool replay_steps(const std::string& name, c10::cuda::CUDAStream stream) {
  Batch batch;
  Training<Optimizer> captured, plain;
  const auto step_of = [&batch](Training<Optimizer>& training) { return [&] { training.step(batch); }; };
  for (uint64_t seed = 0; seed < 3; ++seed) {  // the first steps allocate what is kept between steps
    batch.fill(seed);
    run_on(stream, step_of(captured));
    run_on(stream, step_of(plain));
  }
  Captured graph(stream, step_of(captured));
  double difference = 0.0;
  for (uint64_t seed = 10; seed < 20; ++seed) {
    batch.fill(seed);
    graph.replay();
    run_on(stream, step_of(plain));
    difference = std::max(difference, (captured.loss - plain.loss).abs().template item<double>());
  }
  difference = std::max(difference, largest_difference(*captured.model, *plain.model));
  return tell(name + ", 10 steps", difference);
}

/// A base that counts its steps, and a learning rate that changes from replay to replay: both are on the device.
template <class Optimizer, class Options>
bool replay_a_schedule(const std::string& name, const Options& options, c10::cuda::CUDAStream stream) {
  Batch batch;
  Training<Optimizer, Options> captured(options), plain(options);
  for (uint64_t seed = 0; seed < 3; ++seed) {
    batch.fill(seed);
    run_on(stream, [&] { captured.step(batch); });
    run_on(stream, [&] { plain.step(batch); });
  }
  Captured graph(stream, [&] { captured.step(batch); });
  for (uint64_t seed = 10; seed < 20; ++seed) {
    batch.fill(seed);
    const double rate = options.lr() / static_cast<double>(seed - 8);
    captured.optimizer.param_groups()[0].options().set_lr(rate);
    plain.optimizer.param_groups()[0].options().set_lr(rate);
    run_on(stream, [&] { captured.optimizer.refresh_learning_rates(); });
    graph.replay();
    run_on(stream, [&] { plain.step(batch); });
  }
  return tell(name + ", 10 steps of a schedule", largest_difference(*captured.model, *plain.model));
}

/// Steps that a graph would get wrong are refused before anything has happened.
template <class Optimizer, class Change>
bool is_refused(const std::string& what, c10::cuda::CUDAStream stream, bool run_first, Change&& change) {
  Batch batch;
  batch.fill(0);
  Training<Optimizer> training;
  if (run_first) run_on(stream, [&] { training.step(batch); });
  change(training.optimizer);
  try {
    const Captured graph(stream, [&] { training.step(batch); });
  } catch (const std::exception& error) {
    const std::string message = error.what();
    std::printf("%-34s refused: %s\n", what.c_str(), message.substr(0, message.find('\n')).c_str());
    return message.find("CUDA graph") != std::string::npos;
  }
  std::printf("%-34s was captured: WRONG\n", what.c_str());
  return false;
}

bool everything(c10::cuda::CUDAStream stream) {
  using SAM = steppe::SAM<SGD>;
  bool right = replay_an_ascent(stream);
  right &= replay_steps<SAM>("SAM", stream);
  right &= replay_steps<steppe::ASAM<SGD>>("ASAM", stream);
  right &= replay_steps<steppe::ZSharp<SGD>>("ZSharp", stream);
  right &= replay_steps<steppe::GCSAM<SGD>>("GCSAM", stream);
  using torch::optim::Adam, torch::optim::AdamOptions, torch::optim::AdamW, torch::optim::AdamWOptions;
  right &= replay_a_schedule<steppe::SAM<steppe::Fused<SGD>>>("SAM, fused SGD", SGDOptions(0.1).momentum(0.9), stream);
  right &= replay_a_schedule<steppe::SAM<steppe::Fused<Adam>>>("SAM, fused Adam", AdamOptions(0.01), stream);
  right &= replay_a_schedule<steppe::ZSharp<steppe::Fused<AdamW>>>("ZSharp, fused AdamW", AdamWOptions(0.01), stream);
  const auto nothing = [](SAM&) {};
  right &= is_refused<SAM>("a first step", stream, false, nothing);
  right &= is_refused<SAM>("random numbers in both passes", stream, true, [](SAM& sam) { sam.replay_rng(true); });
  right &= is_refused<SAM>("every second step", stream, true, [](SAM& sam) { sam.every(2); });
  right &= is_refused<SAM>("a schedule of rho", stream, true,
                           [](SAM& sam) { sam.rho_schedule(steppe::schedule::linear(0.05, 0.2, 1000)); });
  return right;
}

}  // namespace

int main() {
  if (!torch::cuda::is_available()) {
    std::printf("not run: LibTorch sees no CUDA device\n");
    return kNoDevice;
  }
  try {
    return everything(c10::cuda::getStreamFromPool()) ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
