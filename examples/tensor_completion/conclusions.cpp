// SPDX-License-Identifier: MIT
#include "conclusions.hpp"

#include <algorithm>
#include <cmath>

#include "presentation/formatted.hpp"
#include "presentation/spread.hpp"
#include "published.hpp"

namespace completion {
namespace {

using presentation::formatted;
using presentation::half_interval;
using presentation::mean_and_deviation;
using presentation::Spread;
using presentation::spread_of;
using presentation::verdict;

using Value = double (*)(const MethodRun&);
using Combined = double (*)(double own, double adam);

/// `combined` applied to the values of every split on which both have run.
std::vector<double> against(const Results& results, const std::string& method, Value value, Combined combined) {
  std::vector<double> all;
  for (const MethodRun* run : results.of(method))
    for (const MethodRun* adam : results.of("adam"))
      if (run->split == adam->split) all.push_back(combined(value(*run), value(*adam)));
  return all;
}

constexpr char kOneSplit[] = "one split, which says nothing about chance";

std::string difference_words(const Spread& spread, const char* more, const char* less) {
  std::string text = formatted("%+.4g on average", spread.mean);
  if (spread.count < 2) return text + " (" + kOneSplit + ")";
  const double half = half_interval(spread);
  return text + formatted(" (95 %% interval %+.4g to %+.4g: %s)", spread.mean - half, spread.mean + half,
                          verdict(spread, more, less));
}

/// Of logarithms: quantities that differ between splits by factors are compared as factors.
std::string factor_words(const std::vector<double>& logs) {
  const Spread spread = spread_of(logs);
  std::string text = formatted("%.4g times adam's", std::exp(spread.mean));
  if (spread.count < 2) return text + " (" + kOneSplit + ")";
  const double half = half_interval(spread);
  const auto less = std::count_if(logs.begin(), logs.end(), [](double log) { return log < 0.0; });
  return text + formatted(" (geometric mean; less on %d of %d splits; 95 %% interval %.4g to %.4g: %s)",
                          static_cast<int>(less), static_cast<int>(logs.size()), std::exp(spread.mean - half),
                          std::exp(spread.mean + half), verdict(spread, "more", "less"));
}

std::string against_adam(const Results& results, const std::string& method) {
  const Combined difference = [](double own, double adam) { return own - adam; };
  const Combined log_ratio = [](double own, double adam) { return std::log(own / adam); };
  const std::vector<double> fits = against(results, method, observed_fit, difference);
  if (fits.empty()) return "";
  std::string text =
      method + " against adam, R2 on observed entries: " + difference_words(spread_of(fits), "better", "worse") + ".\n";
  text += method + " against adam, squared error on held-out entries: " +
          factor_words(against(results, method, held_out_error, log_ratio)) + ".\n";
  if (method != "hooi")
    text += method +
            " against adam, Q at the end: " + factor_words(against(results, method, last_deviation, log_ratio)) + ".\n";
  return text;
}

std::string published_words(const Results& results, const Arguments& arguments) {
  if (!arguments.bundled()) return "";
  std::string text;
  for (const std::string& method : results.methods) {
    const double published = published_r_squared(method);
    if (std::isnan(published) || results.of(method).empty()) continue;
    const double observed = spread_of(results.values(method, observed_fit)).mean;
    const double held_out = spread_of(results.values(method, held_out_fit)).mean;
    text += formatted(
        "%s: the published R2 of %.4f is %+.4f from the one on observed entries, %+.4f from the one on "
        "held-out entries: it has the size of the %s.\n",
        method.c_str(), published, published - observed, published - held_out,
        std::abs(published - observed) < std::abs(published - held_out) ? "observed ones" : "held-out ones");
  }
  if (!text.empty() && !arguments.as_published()) text += "This run was not made in the published setting.\n";
  return text;
}

std::string held_out_words(const Results& results) {
  std::string text;
  const double means = spread_of(results.of_baselines(&Baseline::held_out)).mean;
  for (const std::string& method : results.methods) {
    if (results.of(method).empty()) continue;
    const double fit = spread_of(results.values(method, held_out_fit)).mean;
    text += formatted(
        "%s on held-out entries: R2 %.4g, %s the column means with %.4f; half of the samples have a mean "
        "squared error under %.3g, the worst hundredth of them makes up %.0f %% of the squared error.\n",
        method.c_str(), fit, fit > means ? "better than" : "worse than", means,
        spread_of(results.values(method, median_error)).mean, spread_of(results.values(method, worst_share)).mean);
  }
  return text;
}

std::string correlation_words(const Results& results) {
  std::string text;
  for (const std::string& method : results.methods)
    if (method != "hooi" && !results.of(method).empty())
      text += formatted(
          "%s: the squared norms of the cores and of their gradients correlate with %s over the second half of the "
          "iterations; below 0 SAM's flow lowers Q.\n",
          method.c_str(), mean_and_deviation(results.values(method, late_correlation), "%.3f").c_str());
  return text;
}

/// How far a knob moves the held-out R2, by the means of its attempts.
std::string knob_words(const Results& results, const std::vector<TriedOnSplits>& groups) {
  std::string text;
  for (const std::string& knob : knobs_of(results)) {
    const TriedOnSplits *best = nullptr, *worst = nullptr;
    const auto end = [](const TriedOnSplits& group) { return spread_of(group.values(end_held_out)).mean; };
    for (const TriedOnSplits& group : groups) {
      if (group.attempt->knob != knob) continue;
      if (best == nullptr || end(group) > end(*best)) best = &group;
      if (worst == nullptr || end(group) < end(*worst)) worst = &group;
    }
    text += formatted("%s: held-out R2 at the end from %.4g (at %g) to %.4g (at %g).\n", knob.c_str(), end(*worst),
                      worst->attempt->value, end(*best), best->attempt->value);
  }
  return text;
}

const TriedOnSplits& chosen_of(const std::vector<TriedOnSplits>& groups) {
  const auto validation = [](const TriedOnSplits& group) { return spread_of(group.values(chosen_validation)).mean; };
  return *std::max_element(groups.begin(), groups.end(), [&](const TriedOnSplits& a, const TriedOnSplits& b) {
    return validation(a) < validation(b);
  });
}

}  // namespace

std::string conclusions(const Results& results, const Arguments& arguments) {
  std::string text = published_words(results, arguments) + held_out_words(results);
  for (const std::string& method : results.methods)
    if (method != "adam") text += against_adam(results, method);
  return text + correlation_words(results);
}

std::string attempt_conclusions(const Results& results) {
  const std::vector<TriedOnSplits> groups = by_attempt(results);
  if (groups.empty()) return "";
  const TriedOnSplits &first = groups.front(), &chosen = chosen_of(groups);
  std::string text = knob_words(results, groups);
  text += formatted("Stopping at the best validation R2, and changing nothing else: held-out R2 %s instead of %s.\n",
                    mean_and_deviation(first.values(chosen_held_out), "%.3f").c_str(),
                    mean_and_deviation(first.values(end_held_out), "%.3g").c_str());
  text += formatted("The best of all by validation is '%s': held-out R2 %s there; the column means have %s.\n",
                    chosen.attempt->label().c_str(), mean_and_deviation(chosen.values(chosen_held_out), "%.3f").c_str(),
                    mean_and_deviation(results.of_baselines(&Baseline::held_out), "%.3f").c_str());
  return text;
}

}  // namespace completion
