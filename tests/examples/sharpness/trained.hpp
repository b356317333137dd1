// Small runs on random images, for the tests of the measurements.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "cifar/training.hpp"

namespace examples {

constexpr int64_t kTrainImages = 40, kTestImages = 20;

inline cifar::Dataset random_images(int64_t draw = 1, int64_t train = kTrainImages, int64_t test = kTestImages) {
  at::manual_seed(static_cast<uint64_t>(draw));
  const auto split = [](int64_t count) {
    return cifar::Split{at::randint(0, 256, {count, 3, 32, 32}, at::kByte), at::randint(0, 10, {count}, at::kLong)};
  };
  return {"CIFAR-10", 10, {0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}, split(train), split(test)};
}

inline cifar::RunSettings small_settings(const std::string& optimizer = "sgd", uint64_t seed = 0) {
  cifar::RunSettings run;
  run.optimizer = optimizer;
  run.seed = seed;
  run.train_size = kTrainImages;
  run.test_size = kTestImages;
  run.label_noise = 0.25;
  run.epochs = 2;
  run.batch_size = 20;
  run.learning_rate = 0.05;
  return run;
}

inline void train_to_the_end(cifar::Run& run) {
  run.train([] { return true; }, [](const cifar::EpochRecord&) {});
}

}  // namespace examples
