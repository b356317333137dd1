// A noise-free tensor of low Tucker rank with some of its entries held out.
// SPDX-License-Identifier: MIT
#pragma once

#include "split.hpp"
#include "training.hpp"
#include "tucker_model.hpp"

namespace completion {

/// 30 x 6 x 8 of rank (2,2,2); 30 % held out.
inline Problem low_rank_problem(double validation = 0.0) {
  return {TuckerModel({30, 6, 8}, {2, 2, 2}, 1.0, 11).full().detach(), draw_split({30, 6, 8}, 0.3, validation, 0)};
}

inline bool always(int64_t) { return true; }

}  // namespace completion
