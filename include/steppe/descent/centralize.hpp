// Gradient centralization of the final gradient.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>

#include <c10/util/Exception.h>

#include <cstdint>
#include <vector>

#include <steppe/kernels/dispatch.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace descent {

/// final = g+ - mean(g+) over every dimension but the first, for tensors of at least two dimensions (arXiv 2004.01461),
/// if center_descent(true); else final = g+. Cost: one read and one write of the gradient, no memory kept.
///
///     steppe::GCSAM<torch::optim::SGD> gcsam(*model, torch::optim::SGDOptions(0.1), steppe::Options(),
///                                            steppe::ascent::Centralize(),
///                                            steppe::descent::Centralize().center_descent(true));
class Centralize {
 public:
  static constexpr bool needs_first_gradient = false;  ///< g+ alone is used

  /// Off by default: GCSAM (arXiv 2501.11584) leaves the descent gradient as it is.
  TORCH_ARG(bool, center_descent) = false;
  /// Only convolution weights (dim >= 4).
  TORCH_ARG(bool, conv_only) = false;

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding an ascent link".
  void operator()(std::vector<at::Tensor>& final, const std::vector<at::Tensor>& /*first*/) const {
    if (!center_descent_) return;
    for (at::Tensor& gradient : final) {
      TORCH_CHECK(gradient.layout() == at::kStrided,
                  "steppe: center_descent(true) needs dense gradients, got one of layout ", gradient.layout(),
                  "; turn it off for this parameter group");
      kernels::centralize_(gradient, conv_only_ ? 4 : 2);
    }
  }

  template <class Fields>
  void fields(Fields& field) {
    field("center_descent", center_descent_);
    field("conv_only", conv_only_);
  }
  ///@}
};

}  // namespace descent
STEPPE_NAMESPACE_END
