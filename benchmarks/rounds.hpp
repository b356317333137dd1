// Rounds of timed samples, so that a disturbance of the machine affects every contestant alike.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace benchmarks {

/// One contestant of a round.
struct Timed {
  std::function<void()> reset, run, tidy;  ///< only run is timed
  int inner = 3;                           ///< a sample is the best of this many
  int repetitions = 1;                     ///< each the mean of this many runs
};

struct RoundLimits {
  int rounds = 21;
  int inner = 3;          ///< a sample is the best of this many
  int repetitions = 20;   ///< over small lists each of them is the mean of this many runs
  double deadline = 0.0;  ///< on the clock of seconds_now(); no round but the first begins after it. 0: none
  uint64_t seed = 1;
};

/// Seconds: [contestant][round].
using Samples = std::vector<std::vector<double>>;

/// Calls sample(contestant) for each of them in each round, in an order shuffled anew.
void for_rounds(size_t contestants, const RoundLimits& limits, const std::function<void(size_t contestant)>& sample);

/// In each round one sample of each contestant.
Samples time_rounds(const std::vector<Timed>& contestants, const RoundLimits& limits);

/// Drops the rounds in which `contestant` took over `factor` times its best; returns how many were dropped.
size_t drop_slow_rounds(Samples& samples, size_t contestant, double factor);

}  // namespace benchmarks
