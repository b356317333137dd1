// CIFAR training that several processes, or several parts of one, share.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <steppe/step/gradient_exchange.hpp>

#include "dataset.hpp"
#include "models.hpp"

namespace data_parallel {

struct Settings {
  std::string method = "sam";
  std::string perturb = "each";
  std::string model = "small";
  int64_t epochs = 2;
  int64_t batch = 64;  ///< of all processes together
  int64_t parts = 1;   ///< of each process's share
  double learning_rate = 0.05, rho = 0.05;
  uint64_t seed = 0;
};

/// "sgd", "sam", "asam", "zsharp", "gcsam".
const std::vector<std::string>& method_names();

struct Progress {
  int64_t step = 0, steps = 0;
  double loss = 0.0;  ///< the last step's, over the whole batch
};

/// One process's share of a training. The result depends only on `settings` and on the number of shares.
class Trainer {
 public:
  /// Errors: a batch that cannot be divided, or is larger than the data set.
  Trainer(const cifar::Dataset& data, const Settings& settings, int64_t process, int64_t processes);
  ~Trainer();

  /// Gradients are averaged over the processes from now on.
  void exchange(std::shared_ptr<steppe::GradientExchange> exchange);

  /// Trains to the end, or until go_on() returns false after a step. Returns whether the end was reached.
  bool train(const std::function<bool(const Progress&)>& go_on);

  /// Accuracy on the test images.
  double test_accuracy();

  const cifar::ResNet& model() const { return model_; }
  int64_t steps_made() const { return step_; }

  /// Model, optimizer and the number of steps. One process writes the file that all read; it is replaced as a whole.
  void save(const std::filesystem::path& file) const;
  void load(const std::filesystem::path& file);

  class AnyOptimizer;

 private:
  at::Tensor part(int64_t index);
  void begin_batch();

  const cifar::Dataset& data_;
  const Settings settings_;
  const int64_t process_, processes_;
  cifar::ResNet model_{nullptr};
  std::unique_ptr<AnyOptimizer> optimizer_;
  int64_t step_ = 0;
  at::Tensor images_, labels_;  ///< of the current batch
};

/// The largest difference between two models' parameters.
double difference(const torch::nn::Module& a, const torch::nn::Module& b);

}  // namespace data_parallel
