// How the ascent's tasks would spread over many threads: simulated, from the time that each task takes on one core.
// SPDX-License-Identifier: MIT
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <string>
#include <vector>

#include <steppe/kernels/cpu/ascent.hpp>

#include "command_line.hpp"
#include "parameter_list.hpp"
#include "problem.hpp"
#include "seconds.hpp"

namespace {

using namespace benchmarks;
using steppe::kernels::Layer;
namespace cpu = steppe::kernels::cpu;

/// Runs tasks in sequence, each on the virtual thread that is free first, and adds up when the last of them is done.
class VirtualThreads {
 public:
  /// `start`: seconds from the beginning of a parallel region to its first task, and from its last one to the end.
  VirtualThreads(int count, double start) : count_(count), start_(start) {}

  int count() const { return count_; }

  template <class Body>
  void run(int64_t tasks, Body&& body) {
    if (tasks == 0) return;
    std::vector<double> free_at(static_cast<size_t>(std::min<int64_t>(count_, tasks)), 0.0);
    for (int64_t task = 0; task < tasks; ++task) {
      const auto thread = std::min_element(free_at.begin(), free_at.end());
      const double begin = seconds_now();
      body(task, static_cast<int>(thread - free_at.begin()));
      *thread += seconds_now() - begin;
    }
    seconds_ += *std::max_element(free_at.begin(), free_at.end()) + (free_at.size() > 1 ? start_ : 0.0);
  }

  double seconds() const { return seconds_; }

 private:
  int count_;
  double start_, seconds_ = 0.0;
};

std::vector<Layer> layers_of(const Problem& problem, const std::string& method) {
  std::vector<Layer> layers;
  for (size_t i = 0; i < problem.weights().size(); ++i) {
    const at::Tensor &weight = problem.weights()[i], &gradient = problem.gradients()[i];
    Layer layer;
    layer.direction = layer.out = gradient.data_ptr();
    layer.weights = weight.data_ptr();
    layer.size = weight.numel();
    const bool is_matrix = weight.dim() >= 2;
    if (method == "gcsam" && is_matrix) layer.row = layer.size / weight.size(0);
    layer.filtered = method == "zsharp" && is_matrix;
    layers.push_back(layer);
  }
  return layers;
}

/// Seconds of one ascent.
double seconds_of(Problem& problem, const std::vector<Layer>& layers, cpu::Ascent& ascent, int threads, double start) {
  problem.reset_gradients(false);
  VirtualThreads virtual_threads(threads, start);
  ascent.measure(layers, virtual_threads);
  double squares = 0.0;
  for (size_t i = 0; i < layers.size(); ++i) squares += ascent.statistics(i).measure;
  ascent.ascend(layers, std::vector<double>(layers.size(), 0.05 / std::sqrt(squares)), virtual_threads);
  return virtual_threads.seconds();
}

void run(const ParameterList& list, double start, int rounds) {
  const std::vector<int> counts = {1, 2, 4, 8, 16, 32, 64};
  Problem problem(list, 1);
  std::printf("\n%s: ms of an ascent, simulated, the best round; in brackets the speed-up\nthreads ",
              list.name.c_str());
  for (const int count : counts) std::printf("%16d", count);
  for (const std::string method : {"sam", "gcsam", "zsharp"}) {
    const std::vector<Layer> layers = layers_of(problem, method);
    std::vector<double> best(counts.size(), std::numeric_limits<double>::infinity());
    cpu::Ascent ascent;
    seconds_of(problem, layers, ascent, counts.back(), start);  // memory is allocated
    for (int round = 0; round < rounds; ++round)
      for (size_t i = 0; i < counts.size(); ++i)
        best[i] = std::min(best[i], seconds_of(problem, layers, ascent, counts[i], start));
    std::printf("\n%-8s", method.c_str());
    for (const double seconds : best) std::printf("%8.3f (%5.1f)", seconds * 1e3, best.front() / seconds);
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  double start = 5.0;
  CLI::App app("Simulates an ascent on many threads: its tasks are timed one by one and dealt out to virtual ones.",
               "steppe-benchmark-scaling");
  add_options(app, settings);
  app.remove_option(app.get_option("--threads"));
  app.add_option("--start", start, "Microseconds that starting and joining threads takes (default: 5)")
      ->check(CLI::Range(0.0, 1e6));
  CLI11_PARSE(app, argc, argv);
  try {
    const c10::NoGradGuard no_grad;
    settings.threads = 1;
    if (!prepare(settings)) return 1;
    std::printf("Memory that threads share, its bandwidth and its distance, is not simulated.\n");
    const int rounds = settings.quick ? std::min(settings.rounds, 3) : settings.rounds;
    for (const ParameterList& list : {resnet18(), vit()}) run(list, start * 1e-6, rounds);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "steppe-benchmark-scaling: %s\n", error.what());
    return 1;
  }
  return 0;
}
