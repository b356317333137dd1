// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "presentation/formatted.hpp"
#include "presentation/spread.hpp"
#include "published.hpp"

namespace completion {
namespace {

using presentation::cell;
using presentation::formatted;
using presentation::half_interval;
using presentation::mean_and_deviation;
using presentation::Spread;
using presentation::spread_of;
using presentation::Table;

/// Finite values in rising order.
std::vector<double> sorted(std::vector<double> values) {
  values.erase(std::remove_if(values.begin(), values.end(), [](double x) { return !std::isfinite(x); }), values.end());
  std::sort(values.begin(), values.end());
  return values;
}

double median_error(const MethodRun& run) {
  const std::vector<double> errors = sorted(run.errors);
  return errors.empty() ? presentation::kUnknown : errors[errors.size() / 2];
}

double worst_error(const MethodRun& run) {
  const std::vector<double> errors = sorted(run.errors);
  return errors.empty() ? presentation::kUnknown : errors.back();
}

/// Of the sum over samples, what the worst hundredth of them contributes (at least one sample), in %.
double worst_share(const MethodRun& run) {
  const std::vector<double> errors = sorted(run.errors);
  if (errors.empty()) return presentation::kUnknown;
  const auto worst = static_cast<std::ptrdiff_t>((errors.size() + 99) / 100);
  return 100.0 * std::accumulate(errors.end() - worst, errors.end(), 0.0) /
         std::accumulate(errors.begin(), errors.end(), 0.0);
}

std::vector<std::string> split_heads(const Results& results) {
  std::vector<std::string> heads = {""};
  for (const uint64_t split : results.splits) heads.push_back("split " + std::to_string(split));
  heads.push_back("mean");
  return heads;
}

/// A row's name, its value on every split, their mean.
std::vector<std::string> row_of(const std::string& name, const Results& results, std::vector<double> values,
                                const char* format) {
  std::vector<std::string> row = {name};
  for (size_t k = 0; k < results.splits.size(); ++k)
    row.push_back(k < values.size() ? formatted(format, values[k]) : "-");
  row.push_back(mean_and_deviation(values, format));
  return row;
}

std::vector<double> baseline_values(const Results& results, double Baseline::*fit) {
  std::vector<double> values;
  for (const Baseline& baseline : results.baselines) values.push_back(baseline.*fit);
  return values;
}

constexpr char kColumnMeans[] = "column means";

/// Differences of the splits on which both have run.
std::vector<double> differences(const Results& results, const std::string& method, const std::string& base,
                                double (*value)(const MethodRun&)) {
  std::vector<double> all;
  for (const MethodRun* run : results.of(method))
    for (const MethodRun* other : results.of(base))
      if (run->split == other->split) all.push_back(value(*run) - value(*other));
  return all;
}

/// "better", "worse" or "no difference shown", by the 95 % interval of the mean difference.
std::string verdict(const Spread& spread, const char* more, const char* less) {
  if (spread.count < 2) return "one split, which tells nothing of chance";
  const double half = half_interval(spread);
  const std::string interval = formatted("95 %% interval %+.4g to %+.4g: ", spread.mean - half, spread.mean + half);
  if (spread.mean - half > 0.0) return interval + more;
  if (spread.mean + half < 0.0) return interval + less;
  return interval + "no difference shown";
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

std::string against_adam(const Results& results, const std::string& method) {
  std::string text;
  const auto compare = [&](const char* what, double (*value)(const MethodRun&), const char* more, const char* less) {
    const std::vector<double> apart = differences(results, method, "adam", value);
    if (apart.empty()) return;
    const Spread spread = spread_of(apart);
    text += formatted("%s against adam, %s: %+.4g in the mean (%s).\n", method.c_str(), what, spread.mean,
                      verdict(spread, more, less).c_str());
  };
  compare("R2 on observed entries", observed_fit, "better", "worse");
  compare("R2 on held-out entries", held_out_fit, "better", "worse");
  if (method != "hooi") compare("Q at the end", last_deviation, "higher", "lower");
  return text;
}

std::string held_out_words(const Results& results) {
  std::string text;
  const double means = spread_of(baseline_values(results, &Baseline::held_out)).mean;
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

/// Attempts in their order, each with what its splits gave.
struct Group {
  const Attempt* attempt;
  std::vector<const Tried*> tried;

  std::vector<double> values(const std::function<double(const Tried&)>& value) const {
    std::vector<double> all;
    for (const Tried* each : tried) all.push_back(value(*each));
    return all;
  }
};

std::vector<Group> groups_of(const Results& results) {
  std::vector<Group> groups;
  for (const Tried& tried : results.tried) {
    auto at = std::find_if(groups.begin(), groups.end(),
                           [&](const Group& group) { return group.attempt->label() == tried.attempt.label(); });
    if (at == groups.end()) at = groups.insert(groups.end(), Group{&tried.attempt, {}});
    at->tried.push_back(&tried);
  }
  return groups;
}

double end_held_out(const Tried& tried) { return tried.last.held_out; }
double chosen_held_out(const Tried& tried) { return tried.chosen.held_out; }
double chosen_validation(const Tried& tried) { return tried.chosen.validation; }

/// How far a knob moves the held-out R2, by the means of its attempts.
std::string knob_words(const std::vector<Group>& groups) {
  std::string text;
  std::vector<std::string> knobs;
  for (const Group& group : groups)
    if (group.attempt->knob != "as published" &&
        std::find(knobs.begin(), knobs.end(), group.attempt->knob) == knobs.end())
      knobs.push_back(group.attempt->knob);
  for (const std::string& knob : knobs) {
    const Group *best = nullptr, *worst = nullptr;
    const auto end = [](const Group& group) { return spread_of(group.values(end_held_out)).mean; };
    for (const Group& group : groups) {
      if (group.attempt->knob != knob) continue;
      if (best == nullptr || end(group) > end(*best)) best = &group;
      if (worst == nullptr || end(group) < end(*worst)) worst = &group;
    }
    text += formatted("%s: held-out R2 at the end from %.4g (at %g) to %.4g (at %g).\n", knob.c_str(), end(*worst),
                      worst->attempt->value, end(*best), best->attempt->value);
  }
  return text;
}

const Group& chosen_of(const std::vector<Group>& groups) {
  const auto validation = [](const Group& group) { return spread_of(group.values(chosen_validation)).mean; };
  return *std::max_element(groups.begin(), groups.end(),
                           [&](const Group& a, const Group& b) { return validation(a) < validation(b); });
}

}  // namespace

Table observed_table(const Results& results, const Arguments& arguments) {
  Table table;
  table.rows = {split_heads(results)};
  if (arguments.bundled()) table.rows[0].push_back("published");
  const auto add = [&](const std::string& name, const std::vector<double>& values) {
    table.rows.push_back(row_of(name, results, values, "%.4f"));
    const double published = published_r_squared(name);
    if (arguments.bundled()) table.rows.back().push_back(std::isnan(published) ? "-" : formatted("%.4f", published));
  };
  for (const std::string& method : results.methods) add(method, results.values(method, observed_fit));
  add(kColumnMeans, baseline_values(results, &Baseline::observed));
  return table;
}

Table held_out_table(const Results& results) {
  Table table;
  table.rows = {split_heads(results)};
  for (const char* head : {"median sample's error", "worst sample's error", "worst 1 % of samples, % of error"})
    table.rows[0].push_back(head);
  for (const std::string& method : results.methods) {
    table.rows.push_back(row_of(method, results, results.values(method, held_out_fit), "%.4g"));
    table.rows.back().push_back(mean_and_deviation(results.values(method, median_error), "%.3g"));
    table.rows.back().push_back(mean_and_deviation(results.values(method, worst_error), "%.3g"));
    table.rows.back().push_back(mean_and_deviation(results.values(method, worst_share), "%.0f"));
  }
  table.rows.push_back(row_of(kColumnMeans, results, baseline_values(results, &Baseline::held_out), "%.4g"));
  table.rows.back().resize(table.rows[0].size(), "-");
  return table;
}

Table deviation_table(const Results& results) {
  Table table;
  table.rows = {split_heads(results)};
  for (const char* head : {"mean over adam's", "iterations", "gradients", "seconds"}) table.rows[0].push_back(head);
  const double adam = spread_of(results.values("adam", last_deviation)).mean;
  for (const std::string& method : results.methods) {
    const std::vector<double> deviations = results.values(method, last_deviation);
    const bool trained = method != "hooi";
    table.rows.push_back(row_of(method, results, trained ? deviations : std::vector<double>{}, "%.4g"));
    auto& row = table.rows.back();
    const double ratio = spread_of(deviations).mean / adam;
    row.push_back(trained && std::isfinite(ratio) ? formatted("%.4f", ratio) : "-");
    row.push_back(mean_and_deviation(
        results.values(method,
                       [](const MethodRun& run) { return static_cast<double>(run.completion.last().iteration); }),
        "%.0f"));
    row.push_back(trained ? mean_and_deviation(results.values(method,
                                                              [](const MethodRun& run) {
                                                                return static_cast<double>(run.completion.gradients);
                                                              }),
                                               "%.0f")
                          : "-");
    row.push_back(mean_and_deviation(
        results.values(method, [](const MethodRun& run) { return run.completion.seconds; }), "%.1f"));
  }
  return table;
}

Table attempts_table(const Results& results) {
  Table table;
  table.heads = 2;
  table.rows = {{"", "at the end", "at the end", "best validation", "best validation", "best validation"},
                {"", "R2 observed", "R2 held out", "iteration", "R2 validation", "R2 held out"}};
  for (const Group& group : groups_of(results))
    table.rows.push_back(
        {group.attempt->label(),
         mean_and_deviation(group.values([](const Tried& tried) { return tried.last.training; }), "%.3f"),
         mean_and_deviation(group.values(end_held_out), "%.3g"),
         mean_and_deviation(
             group.values([](const Tried& tried) { return static_cast<double>(tried.chosen.iteration); }), "%.0f"),
         mean_and_deviation(group.values(chosen_validation), "%.3f"),
         mean_and_deviation(group.values(chosen_held_out), "%.3f")});
  return table;
}

std::string conclusions(const Results& results, const Arguments& arguments) {
  std::string text = published_words(results, arguments) + held_out_words(results);
  for (const std::string& method : results.methods)
    if (method != "adam") text += against_adam(results, method);
  return text;
}

std::string attempt_conclusions(const Results& results) {
  const std::vector<Group> groups = groups_of(results);
  if (groups.empty()) return "";
  const Group &first = groups.front(), &chosen = chosen_of(groups);
  std::string text = knob_words(groups);
  text += formatted("Stopping at the best validation R2, and changing nothing else: held-out R2 %s instead of %s.\n",
                    mean_and_deviation(first.values(chosen_held_out), "%.3f").c_str(),
                    mean_and_deviation(first.values(end_held_out), "%.3g").c_str());
  text += formatted("The best of all by validation is '%s': held-out R2 %s there; the column means have %s.\n",
                    chosen.attempt->label().c_str(), mean_and_deviation(chosen.values(chosen_held_out), "%.3f").c_str(),
                    mean_and_deviation(baseline_values(results, &Baseline::held_out), "%.3f").c_str());
  return text;
}

Table moments_csv(const Results& results) {
  Table table;
  table.rows = {{"method", "split", "iteration", "loss", "r2_observed", "r2_held_out", "norm_deviation",
                 "predicted_rate_per_rho", "correlation_of_squares", "squared_norm"}};
  for (const MethodRun& run : results.runs)
    for (const Moment& moment : run.completion.moments) {
      auto& row = table.rows.emplace_back();
      row = {run.method, std::to_string(run.split), std::to_string(moment.iteration)};
      for (const double value : {moment.loss, moment.training, moment.held_out, moment.deviation, moment.predicted_rate,
                                 moment.correlation, moment.squared_norm})
        row.push_back(cell(value));
    }
  return table;
}

Table attempts_csv(const Results& results) {
  Table table;
  table.rows = {{"attempt", "knob", "value", "split", "iterations", "end_r2_training", "end_r2_validation",
                 "end_r2_held_out", "end_norm_deviation", "end_squared_norm", "chosen_iteration",
                 "chosen_r2_validation", "chosen_r2_held_out"}};
  for (const Tried& tried : results.tried) {
    auto& row = table.rows.emplace_back();
    row = {tried.attempt.label(), tried.attempt.knob, cell(tried.attempt.value), std::to_string(tried.split)};
    for (const double value :
         {static_cast<double>(tried.last.iteration), tried.last.training, tried.last.validation, tried.last.held_out,
          tried.last.squared_norm, static_cast<double>(tried.chosen.iteration), tried.chosen.validation,
          tried.chosen.held_out})
      row.push_back(cell(value));
  }
  return table;
}

Table samples_csv(const Results& results) {
  Table table;
  table.rows = {{"method", "split", "sample", "observed_entries", "held_out_mean_squared_error"}};
  for (const MethodRun& run : results.runs)
    for (size_t i = 0; i < run.errors.size(); ++i)
      table.rows.push_back(
          {run.method, std::to_string(run.split), std::to_string(i), cell(run.observed[i]), cell(run.errors[i])});
  return table;
}

}  // namespace completion
