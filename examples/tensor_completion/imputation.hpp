// Completion by HOOI: the classical decomposition, made to work with missing entries by filling them in.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

#include "training.hpp"

namespace completion {

struct ImputationSettings {
  std::vector<int64_t> ranks;
  int64_t sweeps = 2000;    ///< at most
  double tolerance = 1e-5;  ///< settled when the filled entries move by less, relative to their norm
};

/// Entries that are not trained on begin at their column's mean (see column_means); then, until they settle, one HOOI
/// sweep gives a Tucker form of the filled tensor, and its values fill the missing entries anew. This is expectation
/// maximization: the squared error on the training entries never rises. A sweep is an iteration of the
/// result; its factors are orthonormal, so that its norm deviation means nothing.
///
/// Errors: ranks that do not fit.
Completion impute(const Problem& problem, const ImputationSettings& settings, const GoOn& go_on);

}  // namespace completion
