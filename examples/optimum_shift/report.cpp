// SPDX-License-Identifier: MIT
#include "optimum_shift/report.hpp"

#include <algorithm>
#include <cmath>

#include "presentation/formatted.hpp"
#include "presentation/spread.hpp"

namespace shifting {
namespace {

using presentation::formatted;
using presentation::mean_and_deviation;
using presentation::Table;

int64_t kept(const Trial& trial) {
  return std::count_if(trial.events.begin(), trial.events.end(),
                       [](const Event& event) { return event.report.accepted; });
}

/// A value of the trial's last shift; unknown if there was none.
double norm_ratio(const Trial& trial) {
  if (trial.events.empty()) return presentation::kUnknown;
  const auto& layer = trial.events.back().report.layers.front();
  return layer.norm_after / layer.norm_before;
}

double rank(const Trial& trial) {
  return trial.events.empty() ? presentation::kUnknown
                              : static_cast<double>(trial.events.back().report.layers.front().rank);
}

/// "32/64": the mean rank over the trials, and the number of features.
std::string rank_of(const std::vector<double>& ranks, const Trial& one) {
  if (ranks.empty()) return "-";
  return mean_and_deviation(ranks, "%.0f") +
         formatted("/%lld", static_cast<long long>(one.events.back().report.layers.front().features));
}

struct Column {
  std::string name, unit, format;
  double (*value)(const Trial&);
};

const std::vector<Column>& columns() {
  static const std::vector<Column> all = {
      {"train loss", "", "%.4f", [](const Trial& t) { return t.state.train.loss; }},
      {"train accuracy", "%", "%.1f", [](const Trial& t) { return 100.0 * t.state.train.accuracy; }},
      {"test loss", "", "%.3f", [](const Trial& t) { return t.state.test.loss; }},
      {"test accuracy", "%", "%.1f", [](const Trial& t) { return 100.0 * t.state.test.accuracy; }},
      {"norm", "final layer", "%.3f", [](const Trial& t) { return t.state.norm; }},
      {"trace", "all parameters", "%.4g", [](const Trial& t) { return t.state.trace.mean; }},
      {"trace", "final layer", "%.4g", [](const Trial& t) { return t.state.layer_trace.mean; }},
      {"top eigenvalue", "", "%.3g", [](const Trial& t) { return t.state.top; }}};
  return all;
}

std::vector<const Trial*> of(const std::vector<Trial>& trials, const std::string& optimizer, const std::string& label) {
  std::vector<const Trial*> found;
  for (const Trial& trial : trials)
    if (trial.optimizer == optimizer && trial.way.label() == label) found.push_back(&trial);
  return found;
}

std::vector<double> values(const std::vector<const Trial*>& trials, double (*value)(const Trial&)) {
  std::vector<double> all;
  for (const Trial* trial : trials)
    if (const double v = value(*trial); std::isfinite(v)) all.push_back(v);
  return all;
}

/// "3 of 3" shifts kept, over all seeds.
std::string kept_of(const std::vector<const Trial*>& trials) {
  int64_t count = 0;
  size_t tried = 0;
  for (const Trial* trial : trials) {
    count += kept(*trial);
    tried += trial->events.size();
  }
  return tried == 0 ? "-" : formatted("%lld of %zu", static_cast<long long>(count), tried);
}

/// The value minus that of the same run as trained, or divided by it.
std::vector<double> against(const std::vector<Trial>& trials, const std::vector<const Trial*>& shifted,
                            double (*value)(const Trial&), bool ratio) {
  std::vector<double> all;
  for (const Trial* trial : shifted)
    for (const Trial& base : trials)
      if (base.way.when == When::Never && base.optimizer == trial->optimizer && base.seed == trial->seed)
        all.push_back(ratio ? value(*trial) / value(base) : value(*trial) - value(base));
  return all;
}

std::string verdict(const std::vector<Trial>& trials, const std::vector<const Trial*>& shifted) {
  const auto moved = [](const Trial* trial) {
    return std::any_of(trial->events.begin(), trial->events.end(),
                       [](const Event& event) { return event.report.accepted && event.report.layers.front().moved; });
  };
  const auto first = shifted.front();
  if (std::none_of(shifted.begin(), shifted.end(), moved))
    return std::all_of(first->events.begin(), first->events.end(),
                       [](const Event& event) { return !event.report.layers.front().moved; })
               ? "the inputs have full rank, the weights are the only solution: nothing moved"
               : "no shift was kept: nothing moved";
  const auto trace = against(trials, shifted, columns()[5].value, true);
  const auto smaller = std::count_if(trace.begin(), trace.end(), [](double r) { return r < 1.0; });
  const auto loss = presentation::spread_of(against(trials, shifted, columns()[0].value, false));
  const auto accuracy = presentation::spread_of(against(trials, shifted, columns()[3].value, false));
  std::string words = formatted(
      "trace %.2f times (smaller on %lld of %zu seeds), train loss %+.4f, test accuracy %+.1f points",
      presentation::spread_of(trace).mean, static_cast<long long>(smaller), trace.size(), loss.mean, accuracy.mean);
  const double half = presentation::half_interval(accuracy);
  if (std::isfinite(half))
    words += formatted(" (95 %% interval %+.1f to %+.1f)", accuracy.mean - half, accuracy.mean + half);
  return words;
}

template <class Value>
void add_once(std::vector<std::string>& names, const Value& name) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

Table headed(std::vector<std::string> first) {
  Table table{{std::move(first), {}}, 2};
  table.rows[1].resize(table.rows[0].size());
  for (const Column& column : columns()) {
    table.rows[0].push_back(column.name);
    table.rows[1].push_back(column.unit);
  }
  return table;
}

}  // namespace

std::vector<std::string> optimizers_of(const std::vector<Trial>& trials) {
  std::vector<std::string> names;
  for (const Trial& trial : trials) add_once(names, trial.optimizer);
  return names;
}

std::vector<std::string> labels_of(const std::vector<Trial>& trials) {
  std::vector<std::string> names;
  for (const Trial& trial : trials) add_once(names, trial.way.label());
  return names;
}

Table table(const std::vector<Trial>& trials) {
  Table result = headed({"way", "shifts kept", "rank", "norm after/before"});
  for (const std::string& optimizer : optimizers_of(trials))
    for (const std::string& label : labels_of(trials)) {
      const auto here = of(trials, optimizer, label);
      if (here.empty()) continue;
      auto& row = result.rows.emplace_back();
      row = {optimizer + ": " + label, kept_of(here), rank_of(values(here, rank), *here.front()),
             mean_and_deviation(values(here, norm_ratio), "%.3f")};
      for (const Column& column : columns())
        row.push_back(mean_and_deviation(values(here, column.value), column.format.c_str()));
    }
  return result;
}

Table trial_table(const std::vector<Trial>& trials) {
  Table result = headed({"trial", "shifts kept"});
  for (const Trial& trial : trials) {
    auto& row = result.rows.emplace_back();
    row = {formatted("%s, seed %llu: %s", trial.optimizer.c_str(), static_cast<unsigned long long>(trial.seed),
                     trial.way.label().c_str()),
           kept_of({&trial})};
    for (const Column& column : columns()) {
      row.push_back(formatted(column.format.c_str(), column.value(trial)));
      const bool whole = column.unit == "all parameters";
      if (column.name == "trace")
        row.back() += formatted(" ± %.2g", (whole ? trial.state.trace : trial.state.layer_trace).standard_error);
    }
  }
  return result;
}

Table numbers_csv(const std::vector<Trial>& trials) {
  using presentation::cell;
  Table result{{{"optimizer", "seed", "way", "kept", "tried", "rank", "norm_ratio", "trace_standard_error",
                 "layer_trace_standard_error"}}};
  for (const Column& column : columns())
    result.rows[0].push_back(column.name + (column.unit.empty() ? "" : " " + column.unit));
  for (const Trial& trial : trials) {
    auto& row = result.rows.emplace_back();
    row = {trial.optimizer,
           std::to_string(trial.seed),
           trial.way.label(),
           std::to_string(kept(trial)),
           std::to_string(trial.events.size()),
           cell(rank(trial)),
           cell(norm_ratio(trial)),
           cell(trial.state.trace.standard_error),
           cell(trial.state.layer_trace.standard_error)};
    for (const Column& column : columns()) row.push_back(cell(column.value(trial)));
  }
  return result;
}

std::string conclusions(const std::vector<Trial>& trials) {
  std::string words;
  for (const std::string& optimizer : optimizers_of(trials)) {
    words += "  " + optimizer + ", against the same run as trained\n";
    for (const std::string& label : labels_of(trials)) {
      const auto here = of(trials, optimizer, label);
      if (here.empty() || here.front()->way.when == When::Never) continue;
      words += "    " + label + ": " + verdict(trials, here) + ".\n";
    }
  }
  return words;
}

std::string one_line(const std::vector<Trial>& trials) {
  std::string words;
  for (const Trial& trial : trials)
    if (trial.way.when != When::Never)
      words += (words.empty() ? "" : "; ") + trial.way.label() + " " + kept_of({&trial}) + " kept";
  return words;
}

std::string conditions(const cifar::RunSettings& run, const Settings& settings) {
  return formatted(
             "%s: %lld training and %lld test images, %g %% of the training labels wrong; model %s, batches of %lld, "
             "%lld epochs. Everything is measured in evaluation mode on the first %lld training images. ",
             run.dataset.c_str(), static_cast<long long>(run.train_size), static_cast<long long>(run.test_size),
             100.0 * run.label_noise, run.model.c_str(), static_cast<long long>(run.batch_size),
             static_cast<long long>(run.epochs), static_cast<long long>(std::min(settings.images, run.train_size))) +
         formatted(
             "OS shifts once, after training, in evaluation mode; SOS every %lld steps after %g of the training, on a "
             "batch as the network sees it then. Judged: kept only if the loss on the measured images rises by no more "
             "than %g; always: kept whatever it does. The bias %s; momentum is %s.",
             static_cast<long long>(settings.every), settings.from, settings.tolerance,
             settings.include_bias ? "takes part" : "stays", settings.forget_momentum ? "forgotten" : "kept");
}

}  // namespace shifting
