// steppe-optimum-shift: final layers moved to their least-norm weights, after and during training on CIFAR images.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>

#include <cstdio>

#include "optimum_shift/arguments.hpp"
#include "optimum_shift/report.hpp"
#include "optimum_shift/study.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/program.hpp"

namespace {

using shifting::Arguments;
using shifting::Outcome;
using shifting::Study;

Study plan(Arguments& arguments, const cifar::Dataset& data) {
  cifar::RunSettings& run = arguments.training.settings;
  run.dataset = data.name;
  run.train_size = data.train.labels.size(0);
  run.test_size = data.test.labels.size(0);
  Study study{{}, arguments.settings, arguments.study.out};
  for (int i = 0; i < arguments.seeds; ++i)
    for (const std::string& optimizer : arguments.optimizers)
      study.runs.push_back(arguments.training.run(optimizer, arguments.study.seed + static_cast<uint64_t>(i)));
  return study;
}

int run(int argc, char** argv) {
  Arguments arguments;
  if (const auto code = shifting::parse_arguments(argc, argv, arguments)) return *code;
  if (arguments.study.threads > 0) at::set_num_threads(arguments.study.threads);
  const auto& sizes = arguments.training.settings;
  const cifar::Dataset data =
      cifar::cut(cifar::load_dataset(arguments.data), sizes.train_size, sizes.test_size, at::kCPU);
  const Study study = plan(arguments, data);
  presentation::catch_interrupts();
  const Outcome outcome = shifting::carry_out(study, data);
  if (!outcome.trials.empty()) {
    std::printf("\n%s\n\n%s\n%s\n", shifting::conditions(study.runs.front(), study.settings).c_str(),
                presentation::text_of(shifting::table(outcome.trials)).c_str(),
                shifting::conclusions(outcome.trials).c_str());
    std::printf("Results: %s\n", (study.out / "index.html").c_str());
  }
  if (outcome.finished) return 0;
  std::printf("Interrupted after %zu of %zu runs.\n", outcome.runs, study.runs.size());
  return presentation::kInterrupted;
}

}  // namespace

int main(int argc, char** argv) {
  return presentation::carried_out("steppe-optimum-shift", [&] { return run(argc, argv); });
}
