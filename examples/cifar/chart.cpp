// SPDX-License-Identifier: MIT
#include "chart.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "presentation/formatted.hpp"
#include "statistics.hpp"

namespace cifar {
namespace {

using presentation::formatted;
using presentation::Panel;
using presentation::Series;
using Value = std::function<double(const EpochRecord&)>;

int64_t longest(const std::vector<RunResult>& results) {
  int64_t epochs = 0;
  for (const RunResult& run : results) epochs = std::max(epochs, run.settings.epochs);
  return epochs;
}

/// Mean and range of the values of one optimizer's runs, at every epoch that has some.
Series curve(const std::vector<RunResult>& results, const std::string& optimizer, const Value& value) {
  Series series;
  series.name = optimizer;
  for (int64_t epoch = 1; epoch <= longest(results); ++epoch) {
    std::vector<double> values;
    for (const RunResult& run : results)
      for (const EpochRecord& record : run.history)
        if (run.settings.optimizer == optimizer && record.epoch == epoch && std::isfinite(value(record)))
          values.push_back(value(record));
    if (values.empty()) continue;
    const Spread spread = spread_of(values);
    series.x.push_back(static_cast<double>(epoch));
    series.y.push_back(spread.mean);
    series.low.push_back(spread.lowest);
    series.high.push_back(spread.highest);
  }
  return series;
}

/// Test accuracy over the training time; both are means over the seeds that were tested then.
Series over_time(const std::vector<RunResult>& results, const std::string& optimizer) {
  Series series;
  series.name = optimizer;
  for (int64_t epoch = 1; epoch <= longest(results); ++epoch) {
    std::vector<double> seconds, points;
    for (const RunResult& run : results)
      for (const EpochRecord& record : run.history)
        if (run.settings.optimizer == optimizer && record.epoch == epoch && std::isfinite(record.test_accuracy) &&
            std::isfinite(record.seconds)) {
          seconds.push_back(record.seconds);
          points.push_back(100.0 * record.test_accuracy);
        }
    if (seconds.empty()) continue;
    series.x.push_back(spread_of(seconds).mean);
    series.y.push_back(spread_of(points).mean);
  }
  return series;
}

Panel curves(const std::vector<RunResult>& results, const std::string& title, const Value& value) {
  Panel panel{title, {"epoch", false, {}, /*whole=*/true}, {}, {}};
  for (const std::string& optimizer : optimizers_of(results)) panel.series.push_back(curve(results, optimizer, value));
  return panel;
}

Panel curves_over_time(const std::vector<RunResult>& results) {
  Panel panel{"Test accuracy (%) over the time of training", {"seconds"}, {}, {}};
  for (const std::string& optimizer : optimizers_of(results)) panel.series.push_back(over_time(results, optimizer));
  return panel;
}

/// Every run's last test accuracy as a mark, the mean as a bar.
Panel endings(const std::vector<RunResult>& results) {
  const auto points = [](const RunResult& run) { return 100.0 * test_accuracy(run); };
  const std::vector<std::string> optimizers = optimizers_of(results);
  Panel panel{"Test accuracy at the end (%)", {"each mark one seed, the bar their mean", false, optimizers}, {}, {}};
  for (size_t i = 0; i < optimizers.size(); ++i) {
    const std::vector<double> values = values_of(results, optimizers[i], points);
    const std::vector<double> columns(values.size(), static_cast<double>(i));
    panel.series.push_back({optimizers[i], columns, values, {}, {}, Series::Style::Marks});
    if (!values.empty())
      panel.series.push_back(
          {optimizers[i], {static_cast<double>(i)}, {spread_of(values).mean}, {}, {}, Series::Style::Bars});
  }
  return panel;
}

std::string caption(const std::vector<RunResult>& results) {
  const RunSettings& run = results.front().settings;
  const std::string model =
      run.model +
      (run.tensorize == "none" ? "" : formatted(", %s cores, compression %g", run.tensorize.c_str(), run.compression));
  const auto seeds = std::count_if(results.begin(), results.end(),
                                   [&](const RunResult& other) { return other.settings.optimizer == run.optimizer; });
  return formatted("%s, %lld training images with %g %% wrong labels, %lld test images; model %s; %d seed%s%s",
                   run.dataset.c_str(), static_cast<long long>(run.train_size), 100.0 * run.label_noise,
                   static_cast<long long>(run.test_size), model.c_str(), static_cast<int>(seeds), seeds == 1 ? "" : "s",
                   seeds == 1 ? "" : "; lines are means, bands the range over the seeds");
}

}  // namespace

presentation::Figure chart(const std::vector<RunResult>& results) {
  presentation::Figure figure("Optimizers compared on CIFAR images", caption(results));
  figure.add(
      curves(results, "Test accuracy (%)", [](const EpochRecord& epoch) { return 100.0 * epoch.test_accuracy; }));
  figure.add(curves(results, "Accuracy on the training labels (%)",
                    [](const EpochRecord& epoch) { return 100.0 * epoch.train_accuracy; }));
  figure.add(endings(results));
  figure.add(curves_over_time(results));
  return figure;
}

}  // namespace cifar
