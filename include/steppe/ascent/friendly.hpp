// The batch-specific part of the gradient as the ascent direction.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/per_parameter.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace ascent {

/// d = g - sigma m, with m the average of the gradients before this step (Friendly SAM, arXiv 2403.12350):
///
///     m <- lambda m + (1 - lambda) g;   first step: d = g, m = g
///
/// so that the ascent follows what is specific to the batch, not the direction of the full gradient. Two gradients a
/// step; memory: one tensor a parameter, two during pass 2. Checkpoints include the average; a gradient that is not
/// finite does not enter it.
///
///     steppe::FriendlySAM<torch::optim::SGD> sam(*model, torch::optim::SGDOptions(0.1));
///     sam.ascent().lambda(0.6);
class Friendly {
 public:
  /// The weight of the average, which is subtracted.
  TORCH_ARG(double, sigma) = 1.0;
  /// The weight of the earlier gradients in the average, in [0, 1).
  TORCH_ARG(double, lambda) = 0.9;
  /// Subtracts the average that includes this step's gradient, as the paper's formula is printed: with sigma 1 the
  /// direction is the same.
  TORCH_ARG(bool, with_current) = false;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static constexpr bool keeps_state = true;

  void operator()(std::vector<at::Tensor>& direction, const std::vector<at::Tensor>& params) {
    for (size_t i = 0; i < direction.size(); ++i) {
      const at::Tensor mean = average_.of(params[i]);
      if (!mean.defined()) {
        average_.set(params[i], direction[i].clone(), kernels::squares({direction[i]}));
        continue;
      }
      std::vector<at::Tensor> d = {direction[i]}, next(1);
      const at::Tensor squares = kernels::combine(lambda_, {mean}, 1.0 - lambda_, d, next);
      kernels::combine(1.0, d, -sigma_, {with_current_ ? next[0] : mean}, d);
      direction[i] = d[0];
      average_.set(params[i], next[0], squares);
    }
  }

  void bind(const std::vector<at::Tensor>& params) { average_.bind(params); }
  void commit() { average_.commit(); }
  void forget() { average_.forget(); }
  int64_t bytes() const { return average_.bytes(); }

  void validate() const {
    TORCH_CHECK(std::isfinite(sigma_), "steppe: Friendly().sigma() must be finite, got ", sigma_);
    TORCH_CHECK(lambda_ >= 0.0 && lambda_ < 1.0, "steppe: Friendly().lambda() must be in [0, 1), got ", lambda_);
  }

  template <class Fields>
  void fields(Fields& field) {
    field("sigma", sigma_);
    field("lambda", lambda_);
    field("with_current", with_current_);
    field("average", average_);
  }
  ///@}

 private:
  PerParameter average_;
};

}  // namespace ascent
STEPPE_NAMESPACE_END
