// A tensor in Tucker form whose core and factors are trained.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace completion {

/// Y = C x_1 U_1 x_2 U_2 ... x_N U_N with the core C [r_1 .. r_N] and the factors U_k [n_k, r_k], float64 leaves.
class TuckerModel {
 public:
  /// Core and factors drawn from N(0, scale^2) by `seed`. Errors: fewer than two modes, not one rank per mode, a rank
  /// under 1 or over its mode.
  TuckerModel(const std::vector<int64_t>& shape, const std::vector<int64_t>& ranks, double scale, uint64_t seed);

  /// Core, then the factors: the cores of one tensorized layer as steppe::tensorized sees them.
  const std::vector<at::Tensor>& cores() const { return cores_; }

  /// Y, differentiable. Contracted mode by mode, the one that grows the result least first, each by one matrix product.
  at::Tensor full() const;

 private:
  std::vector<at::Tensor> cores_;
  std::vector<size_t> order_;  ///< modes as full() contracts them
};

/// Errors as the constructor of TuckerModel, with `what` ("--rank 9,6,8") at the beginning of the message.
void check_ranks(const std::vector<int64_t>& shape, const std::vector<int64_t>& ranks, const std::string& what);

}  // namespace completion
