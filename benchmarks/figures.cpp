// SPDX-License-Identifier: MIT
#include "figures.hpp"

#include <cstdio>
#include <string>

#include <steppe/kernels/cpu/instruction_sets.hpp>

namespace benchmarks {
namespace {

double target_of_zsharp() {
  using steppe::kernels::cpu::InstructionSet;
  switch (steppe::kernels::cpu::instruction_set()) {
    case InstructionSet::Avx512:
      return 1.10;
    case InstructionSet::Avx2:
      return 1.25;
    case InstructionSet::Sse2:
      return 1.5;
    case InstructionSet::Neon:
    case InstructionSet::Portable:
      break;
  }
  return 0.0;
}

void print_times(const Results& results) {
  std::printf("  %-14s %10s %8s\n", "contestant", "ms", "GB/s");
  for (const Times& times : results.times) {
    const double seconds = median_of(times.seconds);
    std::printf("  %-14s %10.3f", times.name.c_str(), seconds * 1e3);
    if (times.bytes > 0.0)
      std::printf(" %8.1f\n", times.bytes * static_cast<double>(results.components) / seconds * 1e-9);
    else
      std::printf(" %8s\n", "-");
  }
}

void print_figure(const MeasuredFigure& measured) {
  const Figure& figure = measured.figure;
  const Interval& ratio = measured.ratio;
  std::printf("  %-30s %8.3f %8.3f %8.3f", (figure.name + figure.suffix).c_str(), ratio.median, ratio.low, ratio.high);
  if (figure.target > 0.0) {
    const bool met = figure.at_least ? ratio.median >= figure.target : ratio.median <= figure.target;
    std::printf("   %s %-5.2f %s", figure.at_least ? ">=" : "<=", figure.target, met ? "met" : "missed");
  }
  std::printf("\n");
}

}  // namespace

std::vector<Figure> figures_of_methods(const std::string& suffix) {
  const auto figure = [&](const std::string& left, const std::string& right, double target, bool at_least) {
    return Figure{left + "/" + right, left, right, suffix, target, at_least};
  };
  return {figure("sam", "floor", 1.10, false),      figure("gcsam", "sam", 1.05, false),
          figure("asam", "sam", 1.35, false),       figure("zsharp", "sam", target_of_zsharp(), false),
          figure("zsharp_ties", "sam", 3.0, false), figure("aten", "sam", 2.0, true),
          figure("foreach", "sam", 2.0, true),      figure("davda54", "sam", 3.0, true),
          figure("kthvalue", "zsharp", 15.0, true), figure("quantile", "zsharp", 15.0, true)};
}

Figure figure_of_small(const Results& results) {
  const bool tensors = median_of(results.find("aten")->seconds) <= median_of(results.find("foreach")->seconds);
  return {"small_aten/small_sam", tensors ? "aten" : "foreach", "sam", "@" + results.list, 2.0, true};
}

std::vector<MeasuredFigure> measure(const std::vector<Figure>& figures, const Results& results) {
  std::vector<MeasuredFigure> measured;
  for (const Figure& figure : figures) {
    const Times* left = results.find(figure.left);
    const Times* right = results.find(figure.right);
    if (left != nullptr && right != nullptr) measured.push_back({figure, ratio_of(left->seconds, right->seconds)});
  }
  return measured;
}

void print_table(const Results& results, const std::vector<MeasuredFigure>& figures) {
  std::printf("\n%s: %.2fM parameters in %zu tensors; %zu rounds, %zu more dropped\n", results.list.c_str(),
              static_cast<double>(results.components) * 1e-6, results.tensors, results.times.front().seconds.size(),
              results.dropped_rounds);
  print_times(results);
  std::printf("  %-30s %8s %8s %8s   %s\n", "figure", "ratio", "low", "high", "target");
  for (const MeasuredFigure& figure : figures) print_figure(figure);
  std::fflush(stdout);
}

void print_line(const std::string& name, const Interval& ratio) {
  std::printf("ratio %s %.4f %.4f %.4f\n", name.c_str(), ratio.median, ratio.low, ratio.high);
  std::fflush(stdout);
}

}  // namespace benchmarks
