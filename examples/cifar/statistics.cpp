// SPDX-License-Identifier: MIT
#include "statistics.hpp"

#include <algorithm>
#include <cmath>

#include "optimizer_name.hpp"

namespace cifar {
namespace {

bool finished(const RunResult& run) { return !run.history.empty() && run.history.back().epoch == run.settings.epochs; }

}  // namespace

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

double gradients_per_step(const RunResult& run) { return finished(run) ? run.history.back().gradients : kUnknown; }

}  // namespace cifar
