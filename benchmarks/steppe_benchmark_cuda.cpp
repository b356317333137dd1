// An ascent and its restore on a GPU: against a copy of the same memory, against each other, against ATen.
// SPDX-License-Identifier: MIT
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/cuda.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "command_line.hpp"
#include "engine.hpp"
#include "interval.hpp"
#include "parameter_list.hpp"
#include "peers.hpp"
#include "problem.hpp"
#include "rounds.hpp"

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

std::vector<Timed> timed(const std::vector<Entry>& entries, Problem& problem) {
  std::vector<Timed> all;
  for (const Entry& entry : entries) {
    Timed one;
    one.reset = [&problem, &entry] {
      problem.reset_gradients(entry.method == Method::ZSharpTies);
      torch::cuda::synchronize();
    };
    one.run = [&entry] {
      entry.contestant->ascend();
      entry.contestant->restore();
      torch::cuda::synchronize();
    };
    one.tidy = [&entry] { entry.contestant->tidy(); };
    all.push_back(std::move(one));
  }
  return all;
}

void print(const std::vector<Entry>& entries, const Samples& samples, const Problem& problem) {
  std::printf("\n%s, %.2f million parameters, %zu rounds\n", problem.name().c_str(),
              static_cast<double>(problem.components()) * 1e-6, samples.front().size());
  std::printf("%-18s %10s %10s %12s %12s   time over sam's\n", "contestant", "us", "GB/s", "of the copy", "");
  const double copy = entries[0].bytes / median_of(samples[0]);
  for (size_t i = 0; i < entries.size(); ++i) {
    const double time = median_of(samples[i]), speed = entries[i].bytes / time;
    const Interval ratio = ratio_of(samples[i], samples[1]);
    std::printf("%-18s %10.1f %10.0f %11.0f%% %12s   %.2f (%.2f to %.2f)\n", entries[i].name.c_str(), time * 1e6,
                speed * static_cast<double>(problem.components()) * 1e-9, 100.0 * speed / copy, "", ratio.median,
                ratio.low, ratio.high);
  }
}

void run(const ParameterList& list, const RoundLimits& limits) {
  Problem problem(list, 1, at::kCUDA);
  std::vector<Entry> entries = contestants_over(problem);
  check(entries, problem);
  print(entries, time_rounds(timed(entries, problem), limits), problem);
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
