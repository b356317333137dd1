// The settings and the results of a run: plain numbers, for tables, files and pictures.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "presentation/spread.hpp"

namespace cifar {

using presentation::kUnknown;

/// Everything that decides the result of a run.
struct RunSettings {
  std::string dataset = "CIFAR-10", model = "small", optimizer = "sgd", schedule = "cosine";
  std::string tensorize = "none";         ///< format of the blocks' convolutions
  double compression = 10.0;              ///< of each of them
  int64_t train_size = 0, test_size = 0;  ///< images in use
  double label_noise = 0.0;
  bool augment = false;
  int64_t epochs = 1, batch_size = 64;
  double warm_up = 0.0;  ///< epochs
  double learning_rate = 0.1, momentum = 0.9, weight_decay = 5e-4, rho = 0.05, percentile = 0.95, alpha = 0.01;
  int64_t interval = 0;     ///< steps between perturbed ones; 0: the method's own
  double tail_share = 0.3;  ///< of the steps, perturbed by tail
  uint64_t seed = 0;
  int64_t evaluate_every = 1;    ///< epochs; the last one is always evaluated
  double sharpness_rho = 0.05;   ///< of the measurement at the end
  bool plain_loop = false;       ///< steps without a closure; the numbers are the same
  bool fused = false;            ///< the base's step in one pass over memory
  std::string average = "none";  ///< of the weights, for evaluations: ema or swa
  double average_decay = 0.999;  ///< of ema

  /// Of one epoch, a short last one included.
  int64_t batches() const { return (train_size + batch_size - 1) / batch_size; }
  /// Gradient evaluations per step, as planned.
  double planned_gradients() const;
  /// (name, value) of every field, as in the command line.
  std::vector<std::pair<std::string, std::string>> fields() const;
  /// The inverse of fields(): requests the value of every name. A field that older checkpoints do not have gets its
  /// default. Errors: a value that does not fit its field, a missing one.
  static RunSettings read(const std::function<std::optional<std::string>(const std::string& name)>& text_of);
};

/// One epoch. Loss and accuracy of training are running means over its batches, with augmentation and noisy labels.
struct EpochRecord {
  int64_t epoch = 0;  ///< from 1
  double learning_rate = kUnknown, train_loss = kUnknown, train_accuracy = kUnknown;
  double seen_sharpness = kUnknown;  ///< mean of L(w + e) - L(w) over the steps of a sharpness-aware optimizer
  double test_loss = kUnknown, test_accuracy = kUnknown;
  double seconds = kUnknown;    ///< of training, since the start of the run
  double gradients = kUnknown;  ///< evaluations per step, since the start of the run
};

/// The state at the end of a run, on a fixed part of the training images in evaluation mode.
struct Measurement {
  double loss = kUnknown, accuracy = kUnknown, sharpness = kUnknown;
};

struct RunResult {
  RunSettings settings;
  std::vector<EpochRecord> history;
  Measurement measured;  ///< unknown if the run was stopped early
};

}  // namespace cifar
