// SPDX-License-Identifier: MIT
#include "statistics.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "optimizer_name.hpp"

namespace cifar {
namespace {

bool finished(const RunResult& run) { return !run.history.empty() && run.history.back().epoch == run.settings.epochs; }

}  // namespace

Spread spread_of(const std::vector<double>& values) {
  Spread spread;
  spread.count = values.size();
  if (values.empty()) return spread;
  double sum = 0.0, squares = 0.0;
  for (const double value : values) sum += value;
  spread.mean = sum / static_cast<double>(values.size());
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  if (values.size() > 1) spread.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  spread.lowest = *std::min_element(values.begin(), values.end());
  spread.highest = *std::max_element(values.begin(), values.end());
  return spread;
}

double half_interval(const Spread& spread) {
  if (spread.count < 2) return kUnknown;
  constexpr double t_quantiles[] = {12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26};  // 97.5 %, 1 to 9 degrees
  const size_t degrees = spread.count - 1;
  const double t = degrees <= std::size(t_quantiles) ? t_quantiles[degrees - 1] : 2.23;
  return t * spread.deviation / std::sqrt(static_cast<double>(spread.count));
}

std::vector<std::string> optimizers_of(const std::vector<RunResult>& results) {
  std::vector<std::string> names;
  for (const RunResult& run : results)
    if (std::find(names.begin(), names.end(), run.settings.optimizer) == names.end())
      names.push_back(run.settings.optimizer);
  return names;
}

std::vector<double> values_of(const std::vector<RunResult>& results, const std::string& optimizer,
                              const std::function<double(const RunResult&)>& value) {
  std::vector<double> values;
  for (const RunResult& run : results)
    if (run.settings.optimizer == optimizer && std::isfinite(value(run))) values.push_back(value(run));
  return values;
}

std::string base_among(const std::vector<RunResult>& results, const std::string& optimizer) {
  const OptimizerName name = OptimizerName::parse(optimizer);
  if (name.method.empty()) return "";
  for (const std::string& other : optimizers_of(results))
    if (other == name.base) return other;
  return "";
}

std::vector<double> differences_to_base(const std::vector<RunResult>& results, const std::string& optimizer,
                                        const std::function<double(const RunResult&)>& value) {
  std::vector<double> differences;
  const std::string base = base_among(results, optimizer);
  for (const RunResult& run : results)
    for (const RunResult& other : results)
      if (run.settings.optimizer == optimizer && other.settings.optimizer == base &&
          run.settings.seed == other.settings.seed)
        differences.push_back(value(run) - value(other));
  differences.erase(std::remove_if(differences.begin(), differences.end(), [](double d) { return !std::isfinite(d); }),
                    differences.end());
  return differences;
}

double test_accuracy(const RunResult& run) { return finished(run) ? run.history.back().test_accuracy : kUnknown; }

double training_seconds(const RunResult& run) { return finished(run) ? run.history.back().seconds : kUnknown; }

}  // namespace cifar
