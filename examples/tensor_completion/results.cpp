// SPDX-License-Identifier: MIT
#include "results.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace completion {
namespace {

/// The errors that are known, in rising order.
std::vector<double> ordered_errors(const MethodRun& run) {
  std::vector<double> errors = run.errors;
  errors.erase(std::remove_if(errors.begin(), errors.end(), [](double x) { return !std::isfinite(x); }), errors.end());
  std::sort(errors.begin(), errors.end());
  return errors;
}

}  // namespace

double late_correlation(const MethodRun& run) {
  std::vector<double> late;
  for (const Moment& moment : run.completion.moments)
    if (2 * moment.iteration >= run.completion.last().iteration && std::isfinite(moment.correlation))
      late.push_back(moment.correlation);
  return presentation::spread_of(late).mean;
}

double median_error(const MethodRun& run) {
  const std::vector<double> errors = ordered_errors(run);
  return errors.empty() ? presentation::kUnknown : errors[errors.size() / 2];
}

double worst_error(const MethodRun& run) {
  const std::vector<double> errors = ordered_errors(run);
  return errors.empty() ? presentation::kUnknown : errors.back();
}

double worst_share(const MethodRun& run) {
  const std::vector<double> errors = ordered_errors(run);
  if (errors.empty()) return presentation::kUnknown;
  const auto worst = static_cast<std::ptrdiff_t>((errors.size() + 99) / 100);
  return 100.0 * std::accumulate(errors.end() - worst, errors.end(), 0.0) /
         std::accumulate(errors.begin(), errors.end(), 0.0);
}

std::vector<const MethodRun*> Results::of(const std::string& method) const {
  std::vector<const MethodRun*> found;
  for (const MethodRun& run : runs)
    if (run.method == method) found.push_back(&run);
  return found;
}

std::vector<double> Results::values(const std::string& method,
                                    const std::function<double(const MethodRun&)>& value) const {
  std::vector<double> found;
  for (const MethodRun* run : of(method)) found.push_back(value(*run));
  return found;
}

std::vector<double> Results::of_baselines(double Baseline::*fit) const {
  std::vector<double> found;
  for (const Baseline& baseline : baselines) found.push_back(baseline.*fit);
  return found;
}

std::vector<double> TriedOnSplits::values(const std::function<double(const Tried&)>& value) const {
  std::vector<double> all;
  for (const Tried* each : tried) all.push_back(value(*each));
  return all;
}

std::vector<TriedOnSplits> by_attempt(const Results& results) {
  std::vector<TriedOnSplits> groups;
  for (const Tried& tried : results.tried) {
    auto at = std::find_if(groups.begin(), groups.end(),
                           [&](const TriedOnSplits& group) { return group.attempt->label() == tried.attempt.label(); });
    if (at == groups.end()) at = groups.insert(groups.end(), TriedOnSplits{&tried.attempt, {}});
    at->tried.push_back(&tried);
  }
  return groups;
}

std::vector<std::string> knobs_of(const Results& results) {
  std::vector<std::string> knobs;
  for (const Tried& tried : results.tried)
    if (tried.attempt.knob != "as published" &&
        std::find(knobs.begin(), knobs.end(), tried.attempt.knob) == knobs.end())
      knobs.push_back(tried.attempt.knob);
  return knobs;
}

}  // namespace completion
