// What helps on entries that were held out: variations of the published setting, one thing at a time.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "training.hpp"

namespace completion {

/// One variation. Its method is "hooi" or one of train().
struct Attempt {
  std::string knob;    ///< what is varied: "initial scale"
  double value = 0.0;  ///< of the knob; a rank is that of every mode whose published one is not smaller
  TrainingSettings settings;

  std::string label() const;  ///< "initial scale 0.03"
};

/// The published setting first, its knob "as published".
std::vector<Attempt> attempts(const TrainingSettings& published);

/// The result of an attempt on one split.
struct Tried {
  Attempt attempt;
  uint64_t split = 0;
  Moment last, chosen;  ///< chosen: at the best R2 on the validation entries
};

}  // namespace completion
