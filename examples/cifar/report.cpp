// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>

#include "formatted.hpp"
#include "optimizer_name.hpp"
#include "statistics.hpp"

namespace cifar {
namespace {

/// "34.5 ± 1.2"; "34.5" for one value; "-" for none.
std::string mean_and_deviation(const std::vector<double>& values, const char* format) {
  const Spread spread = spread_of(values);
  if (!std::isfinite(spread.mean)) return "-";
  std::string text = formatted(format, spread.mean);
  if (spread.count > 1)
    text += " ± " + formatted(format[0] == '%' && format[1] == '+' ? "%.1f" : format, spread.deviation);
  return text;
}

using Row = std::vector<std::string>;

/// Characters, not bytes.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string aligned(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  std::string text;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - width_of(row[i]), ' ');
      text += i == 0 ? row[i] + gap : "  " + gap + row[i];
    }
    text += '\n';
  }
  return text;
}

/// Mean time of the runs relative to the base's.
std::string relative_seconds(const std::vector<RunResult>& results, const std::string& optimizer) {
  const std::string base = base_among(results, optimizer);
  if (base.empty()) return OptimizerName::parse(optimizer).method.empty() ? "1.00" : "-";
  const double own = spread_of(values_of(results, optimizer, training_seconds)).mean;
  const double times = own / spread_of(values_of(results, base, training_seconds)).mean;
  return std::isfinite(times) ? formatted("%.2f", times) : "-";
}

std::string conclusion(const std::vector<RunResult>& results, const std::string& optimizer) {
  const std::string base = base_among(results, optimizer);
  const auto points = [](const RunResult& run) { return 100.0 * test_accuracy(run); };
  const std::vector<double> differences = differences_to_base(results, optimizer, points);
  if (differences.empty()) return "";
  const Spread spread = spread_of(differences);
  std::string text =
      formatted("  %s: %+.1f points of test accuracy against %s", optimizer.c_str(), spread.mean, base.c_str());
  if (spread.count < 2) return text + ". One seed: this cannot be told from chance.\n";
  const double half = half_interval(spread);
  const auto better = std::count_if(differences.begin(), differences.end(), [](double d) { return d > 0.0; });
  text += formatted(", ahead on %d of %d seeds (95 %% interval %+.1f to %+.1f): ", static_cast<int>(better),
                    static_cast<int>(spread.count), spread.mean - half, spread.mean + half);
  // Beyond what the spread of the seeds explains, or not.
  if (spread.mean - half > 0.0) return text + "better here.\n";
  if (spread.mean + half < 0.0) return text + "worse here.\n";
  return text + "no difference shown.\n";
}

std::string cell(double value) { return std::isfinite(value) ? formatted("%.6g", value) : ""; }

}  // namespace

std::string table(const std::vector<RunResult>& results) {
  const RunSettings& first = results.front().settings;
  const auto per_run = [&](const std::string& name, const char* format,
                           const std::function<double(const RunResult&)>& value) {
    return mean_and_deviation(values_of(results, name, value), format);
  };
  std::vector<Row> rows = {{"", "test accuracy", "train accuracy", "train loss", "sharpness", "seconds", "times base"},
                           {"", "%", "%", "", formatted("rho %g", first.sharpness_rho), "", ""}};
  for (const std::string& name : optimizers_of(results))
    rows.push_back({name, per_run(name, "%.1f", [](const RunResult& run) { return 100.0 * test_accuracy(run); }),
                    per_run(name, "%.1f", [](const RunResult& run) { return 100.0 * run.measured.accuracy; }),
                    per_run(name, "%.3f", [](const RunResult& run) { return run.measured.loss; }),
                    per_run(name, "%.3f", [](const RunResult& run) { return run.measured.sharpness; }),
                    per_run(name, "%.1f", training_seconds), relative_seconds(results, name)});
  return aligned(rows);
}

std::string conclusions(const std::vector<RunResult>& results) {
  std::string text;
  for (const std::string& optimizer : optimizers_of(results))
    if (!base_among(results, optimizer).empty()) text += conclusion(results, optimizer);
  return text;
}

std::string csv(const std::vector<RunResult>& results) {
  std::ostringstream text;
  text << "optimizer,seed,epoch,learning_rate,train_loss,train_accuracy,seen_sharpness,test_loss,test_accuracy,seconds,"
          "measured_loss,measured_accuracy,measured_sharpness\n";
  for (const RunResult& run : results)
    for (const EpochRecord& epoch : run.history) {
      const bool last = epoch.epoch == run.settings.epochs;
      const Measurement measured = last ? run.measured : Measurement();
      text << run.settings.optimizer << ',' << run.settings.seed << ',' << epoch.epoch;
      for (const double value :
           {epoch.learning_rate, epoch.train_loss, epoch.train_accuracy, epoch.seen_sharpness, epoch.test_loss,
            epoch.test_accuracy, epoch.seconds, measured.loss, measured.accuracy, measured.sharpness})
        text << ',' << cell(value);
      text << '\n';
    }
  return text.str();
}

}  // namespace cifar
