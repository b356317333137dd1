// An ascent and its restore on a GPU: against a copy of the same memory, against each other, against ATen.
// SPDX-License-Identifier: MIT
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/cuda.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "command_line.hpp"
#include "device_clock.hpp"
#include "engine.hpp"
#include "interval.hpp"
#include "parameter_list.hpp"
#include "peers.hpp"
#include "problem.hpp"
#include "rounds.hpp"
#include "seconds.hpp"

namespace {

using namespace benchmarks;

/// A copy from device memory to device memory: 8 bytes per parameter.
class Copy : public Contestant {
 public:
  explicit Copy(const Problem& problem)
      : from_({at::empty({problem.components()}, at::kCUDA)}), to_(at::empty({problem.components()}, at::kCUDA)) {
    from_.front().zero_();
  }
  void ascend() override { to_.copy_(from_.front()); }
  void restore() override {}
  const std::vector<at::Tensor>& perturbed() const override { return from_; }

 private:
  std::vector<at::Tensor> from_;
  at::Tensor to_;
};

template <class Kind, class... More>
Entry entry_of(const char* name, Method method, double bytes, const Problem& problem, More... more) {
  Entry entry;
  entry.name = name;
  entry.method = method;
  entry.bytes = bytes;
  entry.contestant = std::make_unique<Kind>(problem, more...);
  return entry;
}

/// The copy first, then SAM.
std::vector<Entry> contestants_over(const Problem& problem) {
  std::vector<Entry> entries;
  entries.push_back(entry_of<Copy>("copy", Method::Sam, 8.0, problem));
  entries.push_back(entry_of<Engine>("sam", Method::Sam, bytes_of(Method::Sam), problem, Method::Sam, true));
  for (const auto& [name, method] : {std::pair{"gcsam", Method::Gcsam}, std::pair{"asam", Method::Asam},
                                     std::pair{"zsharp", Method::ZSharp}, std::pair{"zsharp_ties", Method::ZSharpTies}})
    entries.push_back(entry_of<Engine>(name, method, bytes_of(method), problem, method, true));
  entries.push_back(entry_of<Engine>("zsharp_definition", Method::ZSharp, 0.0, problem, Method::ZSharp, false));
  entries.push_back(entry_of<AtenPeer>("aten", Method::Sam, 32.0, problem));
  entries.push_back(entry_of<ForeachPeer>("foreach", Method::Sam, 32.0, problem));
  entries.push_back(entry_of<Davda54Peer>("davda54", Method::Sam, 48.0, problem));
  return entries;
}

std::vector<at::Tensor> result_of(Contestant& contestant, Problem& problem, Method method) {
  problem.reset_gradients(method == Method::ZSharpTies);
  contestant.ascend();
  std::vector<at::Tensor> moved;
  for (const at::Tensor& each : contestant.perturbed()) moved.push_back(each.detach().clone());
  contestant.restore();
  contestant.tidy();
  return moved;
}

/// Every ascent against the definition, before anything is timed.
void check(std::vector<Entry>& entries, Problem& problem) {
  for (size_t i = 1; i < entries.size(); ++i) {
    Engine definition(problem, entries[i].method, false);
    const std::vector<at::Tensor> expected = result_of(definition, problem, entries[i].method);
    const std::vector<at::Tensor> ours = result_of(*entries[i].contestant, problem, entries[i].method);
    for (size_t k = 0; k < ours.size(); ++k)
      TORCH_CHECK(at::allclose(ours[k], expected[k], 1e-5, 1e-7), entries[i].name, " is wrong in tensor ", k);
  }
}

/// Seconds: [contestant][round].
struct Times {
  Samples device, host;         ///< until the device is done; until the calls return
  double hidden_seconds = 0.0;  ///< of the host's
};

/// In each round one sample of each contestant, the best of several ascents.
Times time_ascents(const std::vector<Entry>& entries, Problem& problem, const RoundLimits& limits) {
  DeviceClock clock;
  Times times{Samples(entries.size()), Samples(entries.size()), clock.hidden_seconds()};
  for_rounds(entries.size(), limits, [&](size_t i) {
    Contestant& contestant = *entries[i].contestant;
    double device = std::numeric_limits<double>::infinity(), host = device;
    for (int k = 0; k < limits.inner; ++k) {
      problem.reset_gradients(entries[i].method == Method::ZSharpTies);
      torch::cuda::synchronize();
      clock.start();
      const double before = seconds_now();
      contestant.ascend();
      contestant.restore();
      host = std::min(host, seconds_now() - before);
      clock.stop();
      device = std::min(device, clock.seconds());
      contestant.tidy();
    }
    times.device[i].push_back(device);
    times.host[i].push_back(host);
  });
  return times;
}

void print(const std::vector<Entry>& entries, const Times& times, const Problem& problem) {
  std::printf("\n%s, %.2f million parameters, %zu rounds\n", problem.name().c_str(),
              static_cast<double>(problem.components()) * 1e-6, times.device.front().size());
  std::printf("%-18s %10s %10s %10s %12s   time over sam's\n", "contestant", "us", "host us", "GB/s", "of the copy");
  const double copy = entries[0].bytes / median_of(times.device[0]);
  bool any_waited = false;
  for (size_t i = 0; i < entries.size(); ++i) {
    const double time = median_of(times.device[i]), speed = entries[i].bytes / time;
    const Interval ratio = ratio_of(times.device[i], times.device[1]);
    const bool waited = median_of(times.host[i]) > times.hidden_seconds;
    any_waited = any_waited || waited;
    std::printf("%-18s %10.1f %9.1f%c %10.0f %11.0f%%   %.2f (%.2f to %.2f)\n", entries[i].name.c_str(), time * 1e6,
                median_of(times.host[i]) * 1e6, waited ? '*' : ' ',
                speed * static_cast<double>(problem.components()) * 1e-9, 100.0 * speed / copy, ratio.median, ratio.low,
                ratio.high);
  }
  if (any_waited)
    std::printf("* more than %.0f us: the device may have waited for the host\n", times.hidden_seconds * 1e6);
}

void run(const ParameterList& list, const RoundLimits& limits) {
  Problem problem(list, 1, at::kCUDA);
  std::vector<Entry> entries = contestants_over(problem);
  check(entries, problem);
  print(entries, time_ascents(entries, problem, limits), problem);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Times an ascent and its restore on a GPU over the parameters of well-known models.",
               "steppe-benchmark-cuda");
  add_options(app, settings);
  CLI11_PARSE(app, argc, argv);
  try {
    if (!prepare(settings)) return 1;
    if (!torch::cuda::is_available()) {
      std::printf("not measured: LibTorch sees no CUDA device\n");
      return 0;
    }
    RoundLimits limits;
    limits.rounds = settings.quick ? 7 : settings.rounds;
    const c10::NoGradGuard no_grad;
    for (const ParameterList& list : {resnet20(), resnet18(), vit()}) run(list, limits);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
