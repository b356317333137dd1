// One run: a model, an optimizer, the data in a reproducible order, and its checkpoint.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <steppe/training/averaged_weights.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dataset.hpp"
#include "models.hpp"
#include "optimizers.hpp"
#include "records.hpp"

namespace cifar {

/// The learning rate's factor at a step of `total`: it rises linearly over `warm_up` steps, then "cosine" falls to 0,
/// "step" is divided by 10 at half and at three quarters, "constant" stays.
double schedule_factor(const std::string& schedule, int64_t step, int64_t warm_up, int64_t total);

/// The state of the current epoch.
struct Moment {
  int64_t epoch, epochs, images;  ///< images seen in it
  double loss, accuracy;          ///< means over them
};

/// The settings of a checkpoint's run. Errors: foreign or damaged files.
RunSettings read_settings(const std::filesystem::path& file);

struct Evaluation {
  double loss, accuracy;
};

class Run {
 public:
  /// The data set must be on the device of the run and is shared between runs.
  Run(const Dataset& data, const RunSettings& settings);

  /// Trains to the end, or until go_on(), called after every batch, returns false. Returns whether the end was reached.
  /// go_on() may move the weights: training continues from where they are then.
  bool train(const std::function<bool()>& go_on, const std::function<void(const EpochRecord&)>& after_epoch);

  /// Waits for the GPU, if there is one.
  Moment moment() const;

  /// Loss, accuracy and SAM sharpness L(w + rho g/|g|) - L(w), in evaluation mode, on the first 2,000 training images
  /// at most, not augmented, with the labels of training: the same for every optimizer.
  Measurement measure();

  /// Mean loss and accuracy in evaluation mode, with the average of the weights if there is one, as in all evaluations.
  Evaluation evaluate(const Split& split);

  /// Everything that the rest of the run depends on, in the middle of an epoch too; replaces the file at once or not at
  /// all. Errors: a file that cannot be written.
  void save(const std::filesystem::path& file) const;
  /// Continues bit for bit where save() was called. Errors: foreign or damaged files, other settings.
  void load(const std::filesystem::path& file);

  const RunSettings& settings() const { return settings_; }
  const std::vector<EpochRecord>& history() const { return history_; }
  const ResNet& model() const { return model_; }
  torch::optim::Optimizer& optimizer() { return *optimizer_.optimizer; }
  /// The training images with the labels that are trained on, wrong ones included.
  Split train_split() const { return {data_.train.images, labels_}; }
  /// Images as the model takes them.
  at::Tensor inputs(const at::Tensor& images) const;

 private:
  void train_batch();
  void finish_epoch();
  Evaluation evaluate(const at::Tensor& images, const at::Tensor& labels, bool with_gradients);
  /// Calls `look` while the model has the weights that are evaluated, with BatchNorm statistics that fit them.
  void with_average(const std::function<void()>& look);
  double learning_rate(int64_t batch) const;

  const Dataset& data_;
  RunSettings settings_;
  at::Tensor labels_;  ///< of training, noise included
  ResNet model_;
  AnyOptimizer optimizer_;
  std::unique_ptr<steppe::training::AveragedWeights> average_;  ///< null if none

  at::Generator random_;           ///< order of the data and augmentation
  at::Tensor order_;               ///< of this epoch's images
  int64_t epoch_ = 0, batch_ = 0;  ///< finished ones
  at::Tensor sums_;                ///< of this epoch: loss, hits, images, sharpness, steps with a known one
  double seconds_ = 0.0;           ///< of training alone
  double gradients_ = 0.0;         ///< evaluations so far; unknown if a checkpoint did not have them
  std::vector<EpochRecord> history_;
};

}  // namespace cifar
