// The gradient of the step before as the ascent direction, so that a step needs one pass.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include <steppe/per_parameter.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace ascent {

/// e = rho h / N(h), with h the gradient of the step before, which was taken at its own perturbed point (S2-SAM,
/// NeurIPS 2024). The only pass of a step is made at w + e; the first step is plain.
///
/// One gradient a step; memory: the last gradient, and the perturbed weights. On w^T w it circles the minimum and does
/// not converge to it.
///
///     steppe::S2SAM<torch::optim::SGD> sam(*model, torch::optim::SGDOptions(0.1));
class LastGradient {
 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding a method of another shape".
  static constexpr bool keeps_state = true;
  static constexpr bool is_ahead = true;  ///< the direction is known before pass 1

  /// The last gradient of a parameter; undefined if there is none yet.
  at::Tensor direction_of(const at::Tensor& param) const { return last_.of(param); }
  /// Keeps the gradients of the only pass.
  void learn(const std::vector<at::Tensor>& params, const std::vector<at::Tensor>& gradients) {
    for (size_t i = 0; i < params.size(); ++i)
      if (gradients[i].defined())
        last_.set(params[i],
                  gradients[i].is_sparse() ? gradients[i].detach().to_dense() : gradients[i].detach().clone());
  }
  static constexpr bool points_against = false;

  void bind(const std::vector<at::Tensor>& params) { last_.bind(params); }
  void commit() { last_.commit(); }
  void forget() { last_.forget(); }
  int64_t bytes() const { return last_.bytes(); }

  template <class Fields>
  void fields(Fields& field) {
    field("last", last_);
  }
  ///@}

 private:
  PerParameter last_;
};

}  // namespace ascent
STEPPE_NAMESPACE_END
