// Weights moved along directions in a scope, and restored exactly at its end.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <exception>
#include <utility>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Moves weights to w + distance * direction; restores w exactly at the end of its scope.
///
/// Writes in place, so that every parameter keeps its address; graphs recorded before stay valid. Memory: one copy of
/// the parameters.
class Displaced {
 public:
  /// Copies the parameters, which stay at w until they are moved.
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
      TORCH_WARN("steppe: weights could not be restored: ", error.what());
    }
  }

  /// `directions`: one for each parameter; an undefined one leaves its parameter at w.
  void move_to(double distance, const std::vector<at::Tensor>& directions) { move({distance}, {directions}); }

  /// w + sum of distances[j] * directions[j].
  void move(std::vector<double> distances, std::vector<std::vector<at::Tensor>> directions) {
    distances_ = std::move(distances);
    directions_ = std::move(directions);
    move_again();
  }

  /// Repeats the last move, bit for bit the same, whatever has been written since.
  void move_again() {
    const c10::NoGradGuard no_grad;
    for (size_t i = 0; i < params_.size(); ++i) {
      at::Tensor weights = params_[i].variable_data();  // its own version counter: nothing seems modified
      weights.copy_(saved_[i]);
      for (size_t j = 0; j < distances_.size(); ++j)
        if (!kernels::exact::is_zero(distances_[j]) && directions_[j][i].defined())
          weights.add_(directions_[j][i], distances_[j]);
    }
    at::autocast::clear_cache();  // casts of the weights as they were
  }

  /// Restores w; move_again() then stays there.
  void restore() {
    const c10::NoGradGuard no_grad;
    distances_.clear();
    directions_.clear();
    for (size_t i = 0; i < params_.size(); ++i) params_[i].variable_data().copy_(saved_[i]);
    at::autocast::clear_cache();
  }

  /// The parameters that it moves.
  const std::vector<at::Tensor>& params() const { return params_; }
  /// Its copies of them, at w.
  const std::vector<at::Tensor>& saved() const { return saved_; }

 private:
  std::vector<at::Tensor> params_, saved_;
  std::vector<double> distances_;
  std::vector<std::vector<at::Tensor>> directions_;
};

}  // namespace sharpness
STEPPE_NAMESPACE_END
