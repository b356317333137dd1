// SPDX-License-Identifier: MIT
#include "attempts.hpp"

#include <algorithm>
#include <functional>

#include "presentation/formatted.hpp"

namespace completion {

std::string Attempt::label() const {
  return knob == "as published" ? knob : presentation::formatted("%s %g", knob.c_str(), value);
}

std::vector<Attempt> attempts(const TrainingSettings& published) {
  TrainingSettings adam = published;
  adam.method = "adam";
  std::vector<Attempt> all = {{"as published", 0.0, adam}};
  const auto vary = [&](const char* knob, const char* method, const std::vector<double>& values,
                        const std::function<void(TrainingSettings&, double)>& set) {
    for (const double value : values) {
      Attempt attempt{knob, value, adam};
      attempt.settings.method = method;
      set(attempt.settings, value);
      all.push_back(attempt);
    }
  };
  const auto limit_rank = [](TrainingSettings& settings, double value) {
    for (int64_t& rank : settings.ranks) rank = std::min(rank, static_cast<int64_t>(value));
  };
  const auto decay = [](TrainingSettings& settings, double value) { settings.weight_decay = value; };
  vary("initial scale", "adam", {0.01, 0.03, 0.1, 1.0},
       [](TrainingSettings& settings, double value) { settings.initial_scale = value; });
  vary("weight decay", "adam", {1e-4, 3e-4, 1e-3, 3e-3, 6e-3, 1e-2}, decay);
  vary("rank", "adam", {1, 2, 3, 4, 6}, limit_rank);
  vary("rank of hooi", "hooi", {1, 2, 3, 4, 8}, limit_rank);
  vary("rho of sam", "sam", {0.01, 0.1, 0.3, 1.0},
       [](TrainingSettings& settings, double value) { settings.rho = value; });
  vary("alpha of das", "das", {0.1, 10.0, 1e3, 1e5},
       [](TrainingSettings& settings, double value) { settings.alpha = value; });
  vary("rank (weight decay 0.003)", "adam", {3, 4, 6}, [&](TrainingSettings& settings, double value) {
    limit_rank(settings, value);
    settings.weight_decay = 3e-3;
  });
  vary("weight decay (initial scale 0.1)", "adam", {1e-3, 3e-3}, [&](TrainingSettings& settings, double value) {
    settings.initial_scale = 0.1;
    settings.weight_decay = value;
  });
  return all;
}

}  // namespace completion
