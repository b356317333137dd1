// A moving average of gradients as the ascent direction.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <cstdint>
#include <vector>

#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/per_parameter.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace ascent {

/// d <- (1 - theta) d + theta g, first d = g (VaSSO, arXiv 2309.15639): the direction varies less from batch to batch.
///
/// Two gradients a step; memory: one tensor a parameter, two during pass 2. Checkpoints include the average; a
/// direction that is not finite is not kept.
///
///     steppe::VaSSO<torch::optim::SGD> vasso(*model, torch::optim::SGDOptions(0.1));
///     vasso.ascent().theta(0.4);
class VarianceSuppressed {
 public:
  /// The weight of the new gradient, in (0, 1].
  TORCH_ARG(double, theta) = 0.9;
  /// Starts from d = 0, so that the first d is theta g: the same direction, but another average from the second step
  /// on.
  TORCH_ARG(bool, zero_start) = false;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static constexpr bool keeps_state = true;

  void operator()(std::vector<at::Tensor>& direction, const std::vector<at::Tensor>& params) {
    for (size_t i = 0; i < direction.size(); ++i) {
      const at::Tensor before = average_.of(params[i]);
      std::vector<at::Tensor> next(1);
      const bool begun = before.defined() || zero_start_;
      const at::Tensor squares =
          kernels::combine(begun ? 1.0 - theta_ : 0.0, {before}, begun ? theta_ : 1.0, {direction[i]}, next);
      direction[i].copy_(next[0]);
      average_.set(params[i], next[0], squares);
    }
  }

  void bind(const std::vector<at::Tensor>& params) { average_.bind(params); }
  void commit() { average_.commit(); }
  void forget() { average_.forget(); }
  int64_t bytes() const { return average_.bytes(); }

  void validate() const {
    TORCH_CHECK(theta_ > 0.0 && theta_ <= 1.0, "steppe: VarianceSuppressed().theta() must be in (0, 1], got ", theta_);
  }

  template <class Fields>
  void fields(Fields& field) {
    field("theta", theta_);
    field("zero_start", zero_start_);
    field("average", average_);
  }
  ///@}

 private:
  PerParameter average_;
};

}  // namespace ascent
STEPPE_NAMESPACE_END
