// SPDX-License-Identifier: MIT
#include "kernel_study.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "presentation/formatted.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/progress.hpp"

namespace statistics {
namespace {

constexpr uint64_t kNoiseStream = 0x6e6f697365;
constexpr int64_t kCheckedSteps = 1000, kMarks = 14;

double percent_to(double value, double base) { return 100.0 * (value / base - 1.0); }

std::vector<double> every_second(const std::vector<double>& values) {
  std::vector<double> chosen;
  for (size_t k = 0; k < values.size(); k += 2) chosen.push_back(values[k]);
  return chosen;
}

std::vector<Stop> best_stops(const std::vector<Curves>& curves, double sigma) {
  std::vector<Stop> best;
  for (const Curves& each : curves) best.push_back(best_stop(each.risk(sigma)));
  return best;
}

std::vector<Curves> closed_forms(const KernelRegression& problem, const std::vector<Descent>& methods,
                                 int64_t iterations) {
  std::vector<Curves> curves;
  for (const Descent& method : methods) curves.push_back(closed_form(problem, method, iterations));
  return curves;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0.0;
  for (size_t k = 0; k < std::min(a.size(), b.size()); ++k) largest = std::max(largest, std::abs(a[k] - b[k]));
  return largest;
}

void check_against_steps(KernelStudy& study, uint64_t seed) {
  study.checked_steps = std::min(kCheckedSteps, study.settings.iterations);
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed ^ kNoiseStream);
  const at::Tensor y =
      study.problem.truth + at::randn({study.problem.size()}, random, study.problem.truth.options()) * 0.5;
  for (size_t i = 0; i < study.methods.size() && !presentation::interrupted(); ++i) {
    const Curves steps = iterated(study.problem, study.methods[i], study.checked_steps);
    study.iteration_difference =
        std::max({study.iteration_difference, largest_difference(steps.bias, study.curves[i].bias),
                  largest_difference(steps.unit_variance, study.curves[i].unit_variance)});
    study.trained_difference =
        std::max(study.trained_difference,
                 difference_of_trained_weights(study.problem, study.methods[i], y, study.checked_steps));
  }
}

void add_designs(KernelStudy& study, uint64_t seed) {
  for (int64_t design = 0; design < study.settings.designs && !presentation::interrupted(); ++design) {
    const KernelRegression problem =
        sine_on_uniform_points(study.settings.n, study.settings.bandwidth, seed + static_cast<uint64_t>(design));
    const auto curves =
        closed_forms(problem, methods_of(problem, study.settings.rho, study.settings.eta), study.settings.iterations);
    for (KernelLevel& level : study.levels) {
      const std::vector<Stop> best = best_stops(curves, level.sigma);
      level.gaps.push_back(percent_to(best[kSam].risk, best[kGd].risk));
      level.long_gaps.push_back(percent_to(best[kLongGd].risk, best[kGd].risk));
    }
  }
}

KernelLevel level_of(const KernelStudy& study, double sigma) {
  KernelLevel level;
  level.sigma = sigma;
  level.best = best_stops(study.curves, sigma);
  const std::vector<double> gd = study.curves[kGd].risk(sigma), sam = study.curves[kSam].risk(sigma);
  level.ahead = stretches(sam, gd);
  level.ahead_at_equal_cost = stretches(sam, every_second(gd));
  return level;
}

}  // namespace

std::vector<Descent> methods_of(const KernelRegression& problem, double rho, double eta) {
  const double d = problem.largest(), step = eta / (d * (1.0 + rho));
  return {{"GD", step, 0.0}, {"SAM", step, rho / d}, {"GD, longer step", step * (1.0 + rho), 0.0}};
}

size_t count_larger(const std::vector<double>& first, const std::vector<double>& second) {
  size_t count = 0;
  for (size_t k = 0; k < std::min(first.size(), second.size()); ++k)
    if (first[k] > second[k] * (1.0 + 1e-9) + 1e-15) ++count;
  return count;
}

KernelStudy carry_out(const KernelSettings& settings, uint64_t seed) {
  KernelStudy study;
  study.settings = settings;
  study.problem = sine_on_uniform_points(settings.n, settings.bandwidth, seed);
  study.methods = methods_of(study.problem, settings.rho, settings.eta);
  study.condition = study.problem.condition(study.methods[kSam]);
  study.curves = closed_forms(study.problem, study.methods, settings.iterations);
  const Curves &gd = study.curves[kGd], &sam = study.curves[kSam];
  study.larger_bias = count_larger(sam.bias, gd.bias);
  study.smaller_variance = count_larger(gd.unit_variance, sam.unit_variance);
  for (const double sigma : settings.sigmas) study.levels.push_back(level_of(study, sigma));
  add_designs(study, seed);
  check_against_steps(study, seed);
  const std::vector<int64_t> steps = logarithmic_steps(settings.iterations, kMarks);
  presentation::Progress progress(
      stdout, static_cast<double>(2 * study.levels.size()) * static_cast<double>(settings.iterations));
  for (KernelLevel& level : study.levels)
    for (const size_t method : {kGd, kSam}) {
      const std::string label =
          presentation::formatted("simulating %s, sigma %g", study.methods[method].name.c_str(), level.sigma);
      level.simulated.push_back(
          simulated(study.problem, study.methods[method], level.sigma, settings.draws, steps, seed ^ kNoiseStream, [&] {
            progress.advance(1.0, label);
            return !presentation::interrupted();
          }));
      level.largest_deviation = std::max(level.largest_deviation,
                                         largest_deviation(level.simulated.back(), study.curves[method], level.sigma));
    }
  progress.clear();
  study.finished = !presentation::interrupted();
  return study;
}

}  // namespace statistics
