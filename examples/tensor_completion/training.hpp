// Completion by gradient descent on the cores: Adam, SAM, DAS.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "presentation/spread.hpp"
#include "split.hpp"

namespace completion {

struct Problem {
  at::Tensor values;  ///< the whole tensor, float64
  Split split;
};

struct TrainingSettings {
  std::string method = "adam";  ///< adam, sam or das
  std::vector<int64_t> ranks;
  int64_t iterations = 50000;
  double learning_rate = 1e-3;
  double rho = 0.01;           ///< sam
  double alpha = 0.001;        ///< das
  double weight_decay = 0.0;   ///< Adam's own: weight_decay * w is added to the gradient
  double initial_scale = 0.3;  ///< deviation of the normal distribution that core and factors are drawn from
  uint64_t seed = 0;           ///< of the cores
};

/// The state of a completion at one iteration.
struct Moment {
  int64_t iteration = 0;  ///< sweeps for HOOI
  double loss = presentation::kUnknown;
  double training = presentation::kUnknown, validation = presentation::kUnknown,
         held_out = presentation::kUnknown;        ///< R2
  double deviation = presentation::kUnknown;       ///< Q of core and factors
  double predicted_rate = presentation::kUnknown;  ///< dQ/dt of SAM's flow per unit of rho
  double correlation = presentation::kUnknown;     ///< of |G_k|^2 and |g_k|^2 over the cores; its sign is the rate's
  double squared_norm = presentation::kUnknown;    ///< sum_k |G_k|^2
};

struct Completion {
  std::vector<Moment> moments;
  at::Tensor fitted;      ///< at the end
  int64_t gradients = 0;  ///< evaluations by the optimizer
  double seconds = 0.0;
  bool finished = false;

  const Moment& last() const { return moments.back(); }
  /// The moment of the best R2 on the validation entries; the last one where there are none.
  const Moment& best_by_validation() const;
};

/// Called before every iteration; false ends the training there.
using GoOn = std::function<bool(int64_t iteration)>;

/// The iterations that are evaluated: 0, the last, ten per decade and a hundred in equal steps.
std::vector<int64_t> looked_at(int64_t iterations);

/// Minimizes the mean of (x - y)^2 over the training entries, from cores drawn anew. Errors: an unknown method, ranks
/// that do not fit.
Completion train(const Problem& problem, const TrainingSettings& settings, const GoOn& go_on);

}  // namespace completion
