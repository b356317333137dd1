// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "optimizer_name.hpp"
#include "presentation/formatted.hpp"
#include "statistics.hpp"

namespace cifar {
namespace {

using presentation::cell;
using presentation::formatted;
using presentation::mean_and_deviation;

/// Mean time of the runs relative to the base's.
std::string relative_seconds(const std::vector<RunResult>& results, const std::string& optimizer) {
  const std::string base = base_among(results, optimizer);
  if (base.empty()) return OptimizerName::parse(optimizer).method.empty() ? "1.00" : "-";
  const double own = spread_of(values_of(results, optimizer, training_seconds)).mean;
  const double times = own / spread_of(values_of(results, base, training_seconds)).mean;
  return std::isfinite(times) ? formatted("%.2f", times) : "-";
}

std::string mean_gradients(const std::vector<RunResult>& results, const std::string& optimizer) {
  const double mean = spread_of(values_of(results, optimizer, gradients_per_step)).mean;
  return std::isfinite(mean) ? formatted("%.2f", mean) : "-";
}

std::string conclusion(const std::vector<RunResult>& results, const std::string& optimizer) {
  const std::string base = base_among(results, optimizer);
  const auto points = [](const RunResult& run) { return 100.0 * test_accuracy(run); };
  const std::vector<double> differences = differences_to_base(results, optimizer, points);
  if (differences.empty()) return "";
  const Spread spread = spread_of(differences);
  std::string text =
      formatted("  %s: %+.1f points of test accuracy against %s", optimizer.c_str(), spread.mean, base.c_str());
  if (spread.count < 2) return text + ". One seed: this cannot be distinguished from chance.\n";
  const double half = half_interval(spread);
  const auto better = std::count_if(differences.begin(), differences.end(), [](double d) { return d > 0.0; });
  text += formatted(", ahead on %d of %d seeds (95 %% interval %+.1f to %+.1f): ", static_cast<int>(better),
                    static_cast<int>(spread.count), spread.mean - half, spread.mean + half);
  return text + presentation::verdict(spread, "better here", "worse here") + ".\n";
}

}  // namespace

presentation::Table table(const std::vector<RunResult>& results) {
  const RunSettings& first = results.front().settings;
  const auto per_run = [&](const std::string& name, const char* format,
                           const std::function<double(const RunResult&)>& value) {
    return mean_and_deviation(values_of(results, name, value), format);
  };
  presentation::Table table;
  table.heads = 2;
  auto& rows = table.rows;
  rows = {{"", "test accuracy", "train accuracy", "train loss", "sharpness", "seconds", "times base", "gradients"},
          {"", "%", "%", "", formatted("rho %g", first.sharpness_rho), "", "", "per step"}};
  for (const std::string& name : optimizers_of(results))
    rows.push_back({name, per_run(name, "%.1f", [](const RunResult& run) { return 100.0 * test_accuracy(run); }),
                    per_run(name, "%.1f", [](const RunResult& run) { return 100.0 * run.measured.accuracy; }),
                    per_run(name, "%.3f", [](const RunResult& run) { return run.measured.loss; }),
                    per_run(name, "%.3f", [](const RunResult& run) { return run.measured.sharpness; }),
                    per_run(name, "%.1f", training_seconds), relative_seconds(results, name),
                    mean_gradients(results, name)});
  return table;
}

std::string conclusions(const std::vector<RunResult>& results) {
  std::string text;
  for (const std::string& optimizer : optimizers_of(results))
    if (!base_among(results, optimizer).empty()) text += conclusion(results, optimizer);
  return text;
}

presentation::Table csv(const std::vector<RunResult>& results) {
  presentation::Table table;
  table.rows = {{"optimizer", "seed", "epoch", "learning_rate", "train_loss", "train_accuracy", "seen_sharpness",
                 "test_loss", "test_accuracy", "seconds", "gradients", "measured_loss", "measured_accuracy",
                 "measured_sharpness"}};
  for (const RunResult& run : results)
    for (const EpochRecord& epoch : run.history) {
      const bool last = epoch.epoch == run.settings.epochs;
      const Measurement measured = last ? run.measured : Measurement();
      auto& row = table.rows.emplace_back();
      row = {run.settings.optimizer, std::to_string(run.settings.seed), std::to_string(epoch.epoch)};
      for (const double value :
           {epoch.learning_rate, epoch.train_loss, epoch.train_accuracy, epoch.seen_sharpness, epoch.test_loss,
            epoch.test_accuracy, epoch.seconds, epoch.gradients, measured.loss, measured.accuracy, measured.sharpness})
        row.push_back(cell(value));
    }
  return table;
}

}  // namespace cifar
