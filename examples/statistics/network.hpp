// A network with one hidden layer on two classes of images, trained on noisy labels by GD and by SAM.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cifar/dataset.hpp"

namespace statistics {

/// Images of 16 x 16 pixels (means of 2 x 2), normalised per channel, as rows; labels are 0 and 1.
struct TwoClasses {
  at::Tensor train_images, test_images;  ///< float32, N x 768
  at::Tensor train_labels, test_labels;  ///< int64, N
};

/// Errors: classes that the data set does not have, one class twice, a split without images of one.
TwoClasses two_classes(const cifar::Dataset& data, int64_t first, int64_t second);

/// -1 and 1 in place of 0 and 1.
at::Tensor signs(const at::Tensor& labels);

struct Method {
  std::string name;
  enum class Kind { GradientDescent, Sam, UnnormalisedSam } kind = Kind::GradientDescent;
  double rho = 0.0;  ///< the radius; of the un-normalised one a multiple of the gradient
};

struct NetworkSettings {
  int64_t hidden = 64;
  double learning_rate = 0.1;
  std::vector<int64_t> steps;  ///< at which predictions are taken; the last one ends the training
};

struct Trained {
  at::Tensor predictions;       ///< steps x test images
  double top_eigenvalue = 0.0;  ///< of the Hessian of the training loss at the end
};

/// Full batches, no momentum, the loss |f - y|^2 / (2 n) with y = -1 or 1. The initial weights are drawn from `seed`
/// alone. go_on() is called at every step; if it returns false, so does this, with nothing.
std::optional<Trained> trained(const TwoClasses& data, const at::Tensor& noisy_labels, const Method& method,
                               const NetworkSettings& settings, uint64_t seed, const std::function<bool()>& go_on);

/// The results over the noise draws of one seed, noise level and method, at every recorded step.
struct NetworkCurves {
  std::vector<double> bias, variance, risk;  ///< of the predictions against the clean test labels; bias is squared
  std::vector<double> error;                 ///< share of wrong test images, mean over the draws
  double top_eigenvalue = 0.0;               ///< mean over the draws
};
NetworkCurves curves_of(const std::vector<Trained>& draws, const at::Tensor& test_labels);

}  // namespace statistics
