// All contestants over one list of parameters: checked, then timed.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "parameter_list.hpp"
#include "rounds.hpp"

namespace benchmarks {

/// The times of one contestant, over the rounds that were kept.
struct Times {
  std::string name;
  double bytes;  ///< per parameter; 0: more than memory traffic
  std::vector<double> seconds;
};

struct Results {
  std::string list;
  int64_t components;
  size_t tensors, dropped_rounds;
  std::vector<Times> times;

  /// Null if the contestant did not take part.
  const Times* find(const std::string& name) const;
};

enum class Field {
  Small,    ///< SAM and its peers, over lists where the overhead per tensor counts
  NoSorts,  ///< everyone but the two peers of ZSharp, which take seconds
  All,
};

/// Throws std::runtime_error if a contestant does not agree with the reference path.
Results compete(const ParameterList& list, Field field, const RoundLimits& limits);

}  // namespace benchmarks
