// Weights moved along directions in a scope, and exactly back at its end.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <exception>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Weights w + distance * direction while it lives, exactly w again at the end of its scope.
///
/// Written in place, so that every parameter keeps its address; graphs recorded before stay valid. Memory: one copy of
/// the parameters.
class Displaced {
 public:
  explicit Displaced(std::vector<at::Tensor> params) : params_(std::move(params)) {
    const c10::NoGradGuard no_grad;
    for (const at::Tensor& param : params_) saved_.push_back(param.detach().clone());
  }

  Displaced(const Displaced&) = delete;
  Displaced& operator=(const Displaced&) = delete;

  ~Displaced() {
    try {
      restore();
    } catch (const std::exception& error) {
      TORCH_WARN("steppe: weights could not be put back: ", error.what());
    }
  }

  /// `directions` stand beside the parameters; an undefined one leaves its parameter at w.
  void move_to(double distance, const std::vector<at::Tensor>& directions) { move({distance}, {directions}); }

  /// w + sum of distances[j] * directions[j].
  void move(const std::vector<double>& distances, const std::vector<std::vector<at::Tensor>>& directions) {
    const c10::NoGradGuard no_grad;
    for (size_t i = 0; i < params_.size(); ++i) {
      at::Tensor weights = params_[i].variable_data();  // its own version counter: nothing seems modified
      weights.copy_(saved_[i]);
      for (size_t j = 0; j < distances.size(); ++j)
        if (distances[j] != 0.0 && directions[j][i].defined()) weights.add_(directions[j][i], distances[j]);
    }
    at::autocast::clear_cache();  // casts of the weights as they were
  }

  void restore() {
    const c10::NoGradGuard no_grad;
    for (size_t i = 0; i < params_.size(); ++i) params_[i].variable_data().copy_(saved_[i]);
    at::autocast::clear_cache();
  }

  const std::vector<at::Tensor>& saved() const { return saved_; }

 private:
  std::vector<at::Tensor> params_, saved_;
};

}  // namespace sharpness
STEPPE_NAMESPACE_END
