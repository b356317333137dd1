// A network shifted in one way, after or during its training, and what that did to it.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/sharpness/landscape.hpp>
#include <steppe/shift/optimum_shifter.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cifar/training.hpp"

namespace shifting {

struct Settings {
  int64_t batch = 32;  ///< images of a shift, where it does not use all
  int64_t every = 25;  ///< steps between two shifts of SOS
  double from = 0.5;   ///< share of the training after which SOS begins
  double tolerance = 1e-4, ridge = 1.0;
  bool include_bias = false, forget_momentum = false;
  int64_t images = 256;  ///< the first training images: shifts are judged by them, and everything is measured on them
  int64_t vectors = 15;  ///< of the traces
  double radius = 1.0;   ///< of the landscape
  int64_t points = 9;
  uint64_t seed = 0;  ///< of the measurements, and of the batches drawn
};

enum class When { Never, After, During };

/// A way of shifting.
struct Way {
  std::string name;
  When when = When::Never;
  bool convolution = false;  ///< the last convolution in place of the final layer
  bool all_images = false;   ///< all training images in place of one small batch
  double ridge = 0.0;
  bool judged = true;  ///< kept only within the tolerance; else always

  /// The name, and whether shifts are judged.
  std::string label() const;
};
std::vector<Way> ways(const Settings& settings);

/// One shift, kept or not.
struct Event {
  int64_t step = 0;  ///< of the training; 0 after it
  steppe::shift::ShifterReport report;
};

/// The network at the end, on the images of the settings (test: all test images), in evaluation mode.
struct State {
  cifar::Evaluation train{}, test{};
  double norm = 0.0;                               ///< of the final layer's weight
  steppe::sharpness::Estimate trace, layer_trace;  ///< over all parameters; over the final layer's weight and bias
  double top = 0.0;                                ///< eigenvalue
};

struct Trial {
  std::string optimizer;
  uint64_t seed = 0;
  Way way;
  std::vector<Event> events;
  State state;
  steppe::sharpness::Slice slice;
  std::optional<steppe::sharpness::Plane> plane;  ///< if requested
};

/// Called now and then with the current work; throws to end everything.
using Tell = std::function<void(const std::string& what)>;

State measure(cifar::Run& run, const cifar::Dataset& data, const Settings& settings, const Tell& tell);

/// Shifts once, at the weights as they are. `draw` decides which images are the batch.
Event shift_after(cifar::Run& run, const Way& way, const Settings& settings, uint64_t draw);

/// Trains to the end with a shift at every k-th step of the late part. The events hold all of them.
std::vector<Event> train_shifting(cifar::Run& run, const Way& way, const Settings& settings, uint64_t draw,
                                  const std::function<void()>& after_batch);

/// The layer that a way shifts, by its name in the model.
std::string layer_of(const cifar::ResNet& model, bool convolution);

}  // namespace shifting
