// steppe-sharpness: how flat the loss is around the weights of steppe-cifar's checkpoints.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>
#include <torch/cuda.h>

#include <cstdio>
#include <stdexcept>

#include "presentation/interrupt.hpp"
#include "presentation/program.hpp"
#include "sharpness/arguments.hpp"
#include "sharpness/report.hpp"
#include "sharpness/study.hpp"

namespace {

using flatness::Arguments;
using flatness::Outcome;
using flatness::Study;

Study plan(const Arguments& arguments) {
  Study study;
  study.sources = arguments.checkpoints.empty() ? flatness::quick_sources(arguments.study.seed)
                                                : flatness::sources_of(arguments.checkpoints);
  study.settings = arguments.settings;
  study.out = arguments.study.out;
  if (arguments.device == "cuda") study.device = at::kCUDA;
  return study;
}

void close(const Study& study, const Outcome& outcome) {
  const auto& results = outcome.results;
  if (!results.empty()) {
    std::printf("\n%s\n\n", flatness::conditions(results, study.settings).c_str());
    std::printf("%s\n", presentation::text_of(results.size() > 1 ? flatness::comparison_table(results, study.settings)
                                                                 : flatness::runs_table(results, study.settings))
                            .c_str());
    std::printf("%s\n", flatness::conclusions(results, study.settings).c_str());
    std::printf("Results: %s\n", (study.out / "index.html").c_str());
  }
  if (!outcome.finished) std::printf("Interrupted after %zu of %zu runs.\n", results.size(), study.sources.size());
}

int run(int argc, char** argv) {
  Arguments arguments;
  if (const auto code = flatness::parse_arguments(argc, argv, arguments)) return *code;
  if (arguments.study.threads > 0) at::set_num_threads(arguments.study.threads);
  if (arguments.device == "cuda" && !torch::cuda::is_available())
    throw std::runtime_error("--device cuda: this LibTorch sees no CUDA device; use --device cpu");
  const Study study = plan(arguments);
  const cifar::Dataset data = cifar::load_dataset(arguments.data);
  presentation::catch_interrupts();
  const Outcome outcome = flatness::carry_out(study, data);
  close(study, outcome);
  return outcome.finished ? 0 : presentation::kInterrupted;
}

}  // namespace

int main(int argc, char** argv) {
  return presentation::carried_out("steppe-sharpness", [&] { return run(argc, argv); });
}
