// The program's results, for its tables, words and pictures.
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
  std::vector<double> errors;    ///< held-out mean squared error of each sample; NaN where nothing was held out
  std::vector<double> observed;  ///< how many entries of each sample were seen
};

inline double observed_fit(const MethodRun& run) { return run.completion.last().training; }
inline double held_out_fit(const MethodRun& run) { return run.completion.last().held_out; }
/// 1 - R2 on the held-out entries: their squared error, relative to their variance.
inline double held_out_error(const MethodRun& run) { return 1.0 - held_out_fit(run); }
inline double last_deviation(const MethodRun& run) { return run.completion.last().deviation; }
/// Mean of the correlation of core and gradient norms over the moments in the second half of the iterations.
double late_correlation(const MethodRun& run);
double median_error(const MethodRun& run);  ///< of the samples
double worst_error(const MethodRun& run);
/// The share of the worst hundredth of the samples (at least one) in the sum over all, in %.
double worst_share(const MethodRun& run);

/// The column means of one split: the baseline of a completion.
struct Baseline {
  uint64_t split = 0;
  double observed = 0.0, held_out = 0.0;  ///< R2
};

struct Results {
  std::vector<std::string> methods;
  std::vector<uint64_t> splits;
  std::vector<MethodRun> runs;  ///< in the order of splits, then methods
  std::vector<Baseline> baselines;
  std::vector<Tried> tried;
  bool finished = true;  ///< false: interrupted, the last run ended early

  std::vector<const MethodRun*> of(const std::string& method) const;
  std::vector<double> values(const std::string& method, const std::function<double(const MethodRun&)>& value) const;
  std::vector<double> of_baselines(double Baseline::*fit) const;
};

/// One attempt with the results of its splits.
struct TriedOnSplits {
  const Attempt* attempt;
  std::vector<const Tried*> tried;

  std::vector<double> values(const std::function<double(const Tried&)>& value) const;
};
/// In the order in which they were made.
std::vector<TriedOnSplits> by_attempt(const Results& results);
/// What was varied, in order; the published setting varies nothing.
std::vector<std::string> knobs_of(const Results& results);

inline double end_held_out(const Tried& tried) { return tried.last.held_out; }
inline double chosen_held_out(const Tried& tried) { return tried.chosen.held_out; }
inline double chosen_validation(const Tried& tried) { return tried.chosen.validation; }

}  // namespace completion
