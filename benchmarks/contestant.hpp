// One way to compute an ascent and its restore.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "method.hpp"

namespace benchmarks {

class Contestant {
 public:
  Contestant() = default;
  Contestant(const Contestant&) = delete;
  Contestant& operator=(const Contestant&) = delete;
  virtual ~Contestant() = default;

  /// Weights to w + e. Timed, like restore().
  virtual void ascend() = 0;
  virtual void restore() = 0;
  /// Not timed: after restore() all is as it was before ascend(), except the values of the gradients.
  virtual void tidy() {}
  /// Between ascend() and restore(): w + e, tensor by tensor.
  virtual const std::vector<at::Tensor>& perturbed() const = 0;
};

/// A contestant with what the table and the check need.
struct Entry {
  std::string name;
  Method method;
  double bytes;  ///< per parameter; 0: more than memory traffic
  std::unique_ptr<Contestant> contestant;
  double norm_error = 1e-4;  ///< relative error of the global norm, which some accumulate in float32
  int64_t may_differ = 0;    ///< components per tensor that may be on the other side of a threshold
};

}  // namespace benchmarks
