// The tensors that every contestant works on.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "parameter_list.hpp"

namespace benchmarks {

/// Normal weights and gradients, each gradient of another scale, as the layers of a model have them.
class Problem {
 public:
  Problem(const ParameterList& list, uint64_t seed, at::Device device = at::kCPU);

  /// Leaves that require gradients.
  const std::vector<at::Tensor>& weights() const { return weights_; }
  /// Tensors whose memory nothing else holds.
  const std::vector<at::Tensor>& gradients() const { return gradients_; }
  int64_t components() const { return components_; }
  const std::string& name() const { return name_; }

  /// The gradients as they were at first; `tied`: with zeros in 95 % of them.
  void reset_gradients(bool tied);

 private:
  std::string name_;
  int64_t components_;
  std::vector<at::Tensor> weights_, gradients_, first_gradients_, zeros_;
};

}  // namespace benchmarks
