// SPDX-License-Identifier: MIT
#include "rounds.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>

#include "seconds.hpp"

namespace benchmarks {
namespace {

double mean_of_runs(const Timed& contestant) {
  double sum = 0.0;
  for (int i = 0; i < contestant.repetitions; ++i) {
    contestant.reset();
    const double before = seconds_now();
    contestant.run();
    sum += seconds_now() - before;
    contestant.tidy();
  }
  return sum / contestant.repetitions;
}

double sample_of(const Timed& contestant) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < contestant.inner; ++i) best = std::min(best, mean_of_runs(contestant));
  return best;
}

}  // namespace

void for_rounds(size_t contestants, const RoundLimits& limits, const std::function<void(size_t)>& sample) {
  std::mt19937_64 random(limits.seed);
  std::vector<size_t> order(contestants);
  std::iota(order.begin(), order.end(), size_t{0});
  for (int round = 0; round < limits.rounds; ++round) {
    if (round > 0 && limits.deadline > 0.0 && seconds_now() > limits.deadline) break;
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t contestant : order) sample(contestant);
  }
}

Samples time_rounds(const std::vector<Timed>& contestants, const RoundLimits& limits) {
  Samples samples(contestants.size());
  for_rounds(contestants.size(), limits, [&](size_t i) { samples[i].push_back(sample_of(contestants[i])); });
  return samples;
}

size_t drop_slow_rounds(Samples& samples, size_t contestant, double factor) {
  const std::vector<double> times = samples[contestant];
  const double limit = factor * *std::min_element(times.begin(), times.end());
  size_t dropped = 0;
  for (size_t round = times.size(); round-- > 0;) {
    if (times[round] <= limit) continue;
    for (std::vector<double>& row : samples) row.erase(row.begin() + static_cast<std::ptrdiff_t>(round));
    ++dropped;
  }
  return dropped;
}

}  // namespace benchmarks
