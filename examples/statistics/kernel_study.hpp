// Kernel regression by GD and SAM: in closed form, iterated and simulated, over several levels of noise.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "arguments.hpp"
#include "kernel_regression.hpp"
#include "simulation.hpp"
#include "stopping.hpp"

namespace statistics {

/// The methods in their order everywhere: SAM with GD at the same step size eta, and GD with the longest step that the
/// same condition allows, eta (1 + rho d_1).
enum MethodIndex : size_t { kGd, kSam, kLongGd, kMethods };

/// Results at one sigma; vectors have one element for each method.
struct KernelLevel {
  double sigma = 0.0;
  std::vector<Stop> best;
  std::vector<Stretch> ahead;                ///< SAM (first) against GD (second) after the same number of steps
  std::vector<Stretch> ahead_at_equal_cost;  ///< after k steps of SAM and 2 k of GD: the same number of gradients
  std::vector<double> gaps, long_gaps;       ///< of the risk at the best stop to GD's, in percent, for every design
  std::vector<Simulated> simulated;          ///< GD, SAM
  double largest_deviation = 0.0;            ///< of the simulation from the closed form, in standard errors
};

struct KernelStudy {
  KernelSettings settings;
  KernelRegression problem;  ///< of the first design, like all else unless noted
  std::vector<Descent> methods;
  std::vector<Curves> curves;
  std::vector<KernelLevel> levels;
  double condition = 0.0;                        ///< eta d_1 (1 + rho d_1) of SAM
  size_t larger_bias = 0, smaller_variance = 0;  ///< steps at which SAM's inequalities to GD fail
  int64_t checked_steps = 0;                     ///< of the iteration and of the trained weights
  double iteration_difference = 0.0;             ///< largest, from the closed form
  double trained_difference = 0.0;               ///< the same of weights trained by LibTorch and steppe
  bool finished = false;

  bool condition_holds() const { return condition <= 1.0 + 1e-12; }
};

std::vector<Descent> methods_of(const KernelRegression& problem, double rho, double eta);

/// At how many k `first` is larger than `second` beyond rounding.
size_t count_larger(const std::vector<double>& first, const std::vector<double>& second);

/// Prints its progress; when the program is interrupted it ends early, with the results so far.
KernelStudy carry_out(const KernelSettings& settings, uint64_t seed);

}  // namespace statistics
