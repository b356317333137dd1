// What the program found out, for its tables and pictures.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "attempts.hpp"
#include "training.hpp"

namespace completion {

/// One method on one split.
struct MethodRun {
  std::string method;
  uint64_t split = 0;
  Completion completion;
  std::vector<double> errors;    ///< held-out mean squared error of each sample
  std::vector<double> observed;  ///< how many entries of each sample were seen
};

/// The column means of one split: what a completion has to beat.
struct Baseline {
  uint64_t split = 0;
  double observed = 0.0, held_out = 0.0;  ///< R2
};

struct Results {
  std::vector<std::string> methods;
  std::vector<uint64_t> splits;
  std::vector<MethodRun> runs;  ///< of splits that were finished, in the order of splits, then methods
  std::vector<Baseline> baselines;
  std::vector<Tried> tried;
  bool finished = true;  ///< false: interrupted, there could have been more

  std::vector<const MethodRun*> of(const std::string& method) const {
    std::vector<const MethodRun*> found;
    for (const MethodRun& run : runs)
      if (run.method == method) found.push_back(&run);
    return found;
  }
  std::vector<double> values(const std::string& method, const std::function<double(const MethodRun&)>& value) const {
    std::vector<double> found;
    for (const MethodRun* run : of(method)) found.push_back(value(*run));
    return found;
  }
};

inline double observed_fit(const MethodRun& run) { return run.completion.last().training; }
inline double held_out_fit(const MethodRun& run) { return run.completion.last().held_out; }
inline double last_deviation(const MethodRun& run) { return run.completion.last().deviation; }

}  // namespace completion
