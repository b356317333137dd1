// An ascent and its restore: against the floor of memory traffic, against each other, against ATen.
// SPDX-License-Identifier: MIT
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "command_line.hpp"
#include "competition.hpp"
#include "figures.hpp"
#include "seconds.hpp"

namespace {

using namespace benchmarks;

/// From the start of the program; after that no further round begins.
constexpr double kQuickSeconds = 25.0;
constexpr int kQuickRounds = 7;

/// The line without a suffix is that of the list where SAM gains least.
void run_small(const RoundLimits& limits) {
  std::vector<MeasuredFigure> figures;
  for (const ParameterList& list : {resnet20(), mlp()}) {
    const Results results = compete(list, Field::Small, limits);
    const std::vector<MeasuredFigure> measured = measure({figure_of_small(results)}, results);
    print_table(results, measured);
    figures.push_back(measured.front());
  }
  const auto least = std::min_element(figures.begin(), figures.end(),
                                      [](const auto& a, const auto& b) { return a.ratio.median < b.ratio.median; });
  for (const MeasuredFigure& one : figures) print_line(one.figure.name + one.figure.suffix, one.ratio);
  print_line(least->figure.name, least->ratio);
}

void run_large(const ParameterList& list, Field field, const std::string& suffix, const RoundLimits& limits) {
  const Results results = compete(list, field, limits);
  const std::vector<MeasuredFigure> measured = measure(figures_of_methods(suffix), results);
  print_table(results, measured);
  for (const MeasuredFigure& one : measured) print_line(one.figure.name + suffix, one.ratio);
}

RoundLimits limits_of(const Settings& settings, double start) {
  RoundLimits limits;
  limits.rounds = settings.quick ? std::min(settings.rounds, kQuickRounds) : settings.rounds;
  if (settings.quick) {
    limits.deadline = start + kQuickSeconds;
    limits.inner = 1;
    limits.repetitions = 5;
  }
  constexpr int kProtocol = 21;
  if (limits.rounds < kProtocol) std::printf("note             under %d rounds: rough figures\n", kProtocol);
  return limits;
}

void run(const Settings& settings, const std::string& list, double start) {
  const RoundLimits limits = limits_of(settings, start);
  if (list != "vit") {
    run_small(limits);
    run_large(resnet18(), Field::All, "", limits);
  }
  // Sorting its 86 million gradients takes longer than a quick run may.
  if (list != "resnet18") run_large(vit(), settings.quick ? Field::NoSorts : Field::All, "@vit", limits);
}

}  // namespace

int main(int argc, char** argv) {
  const double start = seconds_now();
  Settings settings;
  std::string list = "resnet18";
  CLI::App app("Times an ascent and its restore over the parameters of well-known models.", "steppe-benchmark");
  add_options(app, settings);
  app.add_option("--list", list, "resnet18 (with two small models), vit or all (default: resnet18)")
      ->type_name("NAME")
      ->check(CLI::IsMember({"resnet18", "vit", "all"}).description(""));
  CLI11_PARSE(app, argc, argv);
  try {
    const c10::NoGradGuard no_grad;
    if (!prepare(settings)) return 1;
    run(settings, list, start);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "steppe-benchmark: %s\n", error.what());
    return 1;
  }
  return 0;
}
