// ZSharp against SAM in every storage format, at several percentiles, on the instruction sets that have vectors for it.
// SPDX-License-Identifier: MIT
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include <steppe/kernels/cpu/ascent.hpp>

#include "command_line.hpp"
#include "interval.hpp"
#include "parameter_list.hpp"
#include "problem.hpp"
#include "rounds.hpp"

namespace {

using namespace benchmarks;
using steppe::kernels::Format;
using steppe::kernels::Layer;
namespace cpu = steppe::kernels::cpu;

struct Storage {
  const char* name;
  Format format;
  at::ScalarType dtype;
};

constexpr Storage kStorage[] = {{"float32", Format::Float32, at::kFloat},
                                {"bfloat16", Format::BFloat16, at::kBFloat16},
                                {"float16", Format::Half, at::kHalf},
                                {"float64", Format::Float64, at::kDouble}};
constexpr double kPercentiles[] = {0.5, 0.75, 0.9, 0.95, 0.99};

/// The caller's thread.
struct OneThread {
  int count() const { return 1; }
  template <class Body>
  void run(int64_t tasks, Body&& body) const {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
  }
};

/// Ascents over a list in one format; w + e is written where the gradient was.
class Ascents {
 public:
  Ascents(const ParameterList& list, const Storage& storage) : storage_(storage) {
    Problem problem(list, 1);
    problem.reset_gradients(false);
    for (size_t i = 0; i < problem.weights().size(); ++i) {
      weights_.push_back(problem.weights()[i].detach().to(storage.dtype, /*non_blocking=*/false, /*copy=*/true));
      first_.push_back(problem.gradients()[i].to(storage.dtype, false, true));
      gradients_.push_back(at::empty_like(first_.back()));
      Layer layer;
      layer.format = storage.format;
      layer.direction = layer.out = gradients_.back().data_ptr();
      layer.weights = weights_.back().data_ptr();
      layer.size = weights_.back().numel();
      layers_.push_back(layer);
    }
  }

  void reset() {
    for (size_t i = 0; i < first_.size(); ++i) gradients_[i].copy_(first_[i]);
  }

  void sam() {
    for (Layer& layer : layers_) layer.filtered = false;
    ascend();
  }

  void zsharp(double percentile) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      layers_[i].filtered = weights_[i].dim() >= 2;
      layers_[i].quantile = percentile;
    }
    ascend();
  }

  /// How many components the last ascent kept, against the definition: those above the percentile's distance, or all.
  void check(double percentile, const std::string& name) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (!layers_[i].filtered) continue;
      const at::Tensor mean = first_[i].to(at::kDouble).mean().to(first_[i].scalar_type());
      const at::Tensor distances = (first_[i] - mean).abs().flatten();
      const auto rank = static_cast<int64_t>(std::floor(percentile * static_cast<double>(layers_[i].size - 1)));
      const at::Tensor threshold = std::get<0>(distances.kthvalue(rank + 1));
      auto kept = (distances > threshold).sum().item<int64_t>();
      if (kept == 0) kept = layers_[i].size;
      // In double the two means may differ in their last place, and so may two distances.
      if (std::abs(kept - ascent_.statistics(i).kept) > (storage_.format == Format::Float64 ? 2 : 0))
        throw std::runtime_error(name + " keeps " + std::to_string(ascent_.statistics(i).kept) +
                                 " components of layer " + std::to_string(i) + ", the definition " +
                                 std::to_string(kept));
    }
  }

 private:
  void ascend() {
    const OneThread thread;
    ascent_.measure(layers_, thread);
    double squares = 0.0;
    for (size_t i = 0; i < layers_.size(); ++i) squares += ascent_.statistics(i).measure;
    ascent_.ascend(layers_, std::vector<double>(layers_.size(), 0.05 / std::sqrt(squares)), thread);
  }

  Storage storage_;
  std::vector<at::Tensor> weights_, first_, gradients_;
  std::vector<Layer> layers_;
  cpu::Ascent ascent_;
};

void run(const ParameterList& list, const Storage& storage, const RoundLimits& limits) {
  Ascents ascents(list, storage);
  const std::string set = cpu::name_of(cpu::instruction_set());
  const auto reset = [&] { ascents.reset(); };
  std::vector<Timed> timed = {{reset, [&] { ascents.sam(); }, [] {}, limits.inner, 1}};
  for (const double percentile : kPercentiles) {
    ascents.reset();
    ascents.zsharp(percentile);
    ascents.check(percentile, list.name + ", " + storage.name + ", " + set);
    timed.push_back({reset, [&ascents, percentile] { ascents.zsharp(percentile); }, [] {}, limits.inner, 1});
  }
  const Samples samples = time_rounds(timed, limits);
  std::printf("  %-9s %-9s SAM %7.3f ms", set.c_str(), storage.name, 1e3 * median_of(samples[0]));
  for (size_t i = 1; i < samples.size(); ++i) std::printf("   %7.3f", 1e3 * median_of(samples[i]));
  std::printf("\n");
  for (size_t i = 1; i < samples.size(); ++i) {
    const Interval ratio = ratio_of(samples[i], samples[0]);
    std::printf("ratio zsharp_%g/sam@%s_%s_%s %.3f %.3f %.3f\n", kPercentiles[i - 1], list.name.c_str(), storage.name,
                set.c_str(), ratio.median, ratio.low, ratio.high);
  }
  std::fflush(stdout);
}

/// The one that STEPPE_CPU names, or all.
std::vector<cpu::InstructionSet> sets_to_time() {
  const char* const wanted = std::getenv("STEPPE_CPU");
  if (wanted != nullptr && *wanted != '\0') return {cpu::instruction_set()};
  return cpu::available_instruction_sets();
}

/// Vectors of its own: double has those of AVX2 with AVX-512 too.
bool has_vectors(cpu::InstructionSet set, Format format) {
  switch (set) {
    case cpu::InstructionSet::Portable:
      return false;
    case cpu::InstructionSet::Sse2:
      return format == Format::Float32;
    case cpu::InstructionSet::Avx2:
      return true;
    case cpu::InstructionSet::Avx512:
    case cpu::InstructionSet::Neon:
      return format != Format::Float64;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Times ZSharp against SAM in every storage format, over ResNet-18's parameters and over one layer.",
               "steppe-benchmark-formats");
  add_options(app, settings);
  app.remove_option(app.get_option("--threads"));
  CLI11_PARSE(app, argc, argv);
  try {
    const c10::NoGradGuard no_grad;
    settings.threads = 1;
    if (!prepare(settings)) return 1;
    RoundLimits limits;
    limits.rounds = settings.quick ? std::min(settings.rounds, 3) : settings.rounds;
    const std::vector<cpu::InstructionSet> sets = sets_to_time();
    const ParameterList layer = {"layer", {{768, 3072}}};
    for (const ParameterList& list : {layer, resnet18()}) {
      std::printf("\n%s, 1 thread: SAM, then ZSharp at the percentiles 0.5, 0.75, 0.9, 0.95, 0.99 (ms)\n",
                  list.name.c_str());
      for (const cpu::InstructionSet set : sets) {
        cpu::use(set);
        for (const Storage& storage : kStorage)
          if (has_vectors(set, storage.format)) run(list, storage, limits);
      }
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "steppe-benchmark-formats: %s\n", error.what());
    return 1;
  }
  return 0;
}
