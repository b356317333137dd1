// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <cmath>

#include "presentation/formatted.hpp"
#include "presentation/spread.hpp"
#include "published.hpp"

namespace completion {
namespace {

using presentation::cell;
using presentation::formatted;
using presentation::mean_and_deviation;
using presentation::spread_of;
using presentation::Table;

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

constexpr char kColumnMeans[] = "column means";

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
  add(kColumnMeans, results.of_baselines(&Baseline::observed));
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
  table.rows.push_back(row_of(kColumnMeans, results, results.of_baselines(&Baseline::held_out), "%.4g"));
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
  table.rows = {{"", "at the end", "at the end", "at the end", "best validation", "best validation", "best validation"},
                {"", "R2 trained on", "Q", "R2 held out", "iteration", "R2 validation", "R2 held out"}};
  for (const TriedOnSplits& group : by_attempt(results))
    table.rows.push_back(
        {group.attempt->label(),
         mean_and_deviation(group.values([](const Tried& tried) { return tried.last.training; }), "%.3f"),
         group.attempt->settings.method == "hooi"
             ? "-"
             : mean_and_deviation(group.values([](const Tried& tried) { return tried.last.deviation; }), "%.3g"),
         mean_and_deviation(group.values(end_held_out), "%.3g"),
         mean_and_deviation(
             group.values([](const Tried& tried) { return static_cast<double>(tried.chosen.iteration); }), "%.0f"),
         mean_and_deviation(group.values(chosen_validation), "%.3f"),
         mean_and_deviation(group.values(chosen_held_out), "%.3f")});
  return table;
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
