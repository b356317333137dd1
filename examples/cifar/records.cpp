// SPDX-License-Identifier: MIT
#include "records.hpp"

#include <sstream>

namespace cifar {
namespace {

template <class Value>
std::string written(const Value& value) {
  std::ostringstream text;
  text.precision(17);
  text << value;
  return text.str();
}

}  // namespace

std::vector<std::pair<std::string, std::string>> RunSettings::fields() const {
  return {{"data", dataset},
          {"model", model},
          {"optimizer", optimizer},
          {"schedule", schedule},
          {"train-size", written(train_size)},
          {"test-size", written(test_size)},
          {"label-noise", written(label_noise)},
          {"augment", written(augment)},
          {"epochs", written(epochs)},
          {"batch-size", written(batch_size)},
          {"warm-up", written(warm_up)},
          {"lr", written(learning_rate)},
          {"momentum", written(momentum)},
          {"weight-decay", written(weight_decay)},
          {"rho", written(rho)},
          {"percentile", written(percentile)},
          {"seed", written(seed)},
          {"evaluate-every", written(evaluate_every)},
          {"sharpness-rho", written(sharpness_rho)}};
}

}  // namespace cifar
