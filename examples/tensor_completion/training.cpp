// SPDX-License-Identifier: MIT
#include "training.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mse_loss.h>
#include <torch/optim/adam.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <stdexcept>

#include <steppe/optimizers.hpp>
#include <steppe/tensorized/norm_deviation.hpp>

#include "fit.hpp"
#include "presentation/clock.hpp"
#include "tucker_model.hpp"

namespace completion {
namespace {

using torch::optim::Adam;
using torch::optim::AdamOptions;

std::unique_ptr<torch::optim::Optimizer> optimizer_of(const TrainingSettings& settings,
                                                      const std::vector<at::Tensor>& cores) {
  const AdamOptions base = AdamOptions(settings.learning_rate).weight_decay(settings.weight_decay);
  if (settings.method == "adam") return std::make_unique<Adam>(cores, base);
  if (settings.method == "sam")
    return std::make_unique<steppe::SAM<Adam>>(cores, base, steppe::Options().rho(settings.rho));
  if (settings.method == "das")
    return std::make_unique<steppe::DAS<Adam>>(cores, base, steppe::ScalingOptions().alpha(settings.alpha));
  throw std::runtime_error("there is no method '" + settings.method + "'; adam, sam and das train");
}

double correlation_of(const steppe::tensorized::NormDeviation& seen) {
  const auto deviation = [](const at::Tensor& squares) { return (squares - squares.mean()).square().mean().sqrt(); };
  return (seen.covariance() / (deviation(seen.core_squares) * deviation(seen.gradient_squares))).item<double>();
}

class Training {
 public:
  Training(const Problem& problem, const TrainingSettings& settings)
      : problem_(problem),
        model_(problem.values.sizes().vec(), settings.ranks, settings.initial_scale, settings.seed),
        monitor_({model_.cores()}),
        optimizer_(optimizer_of(settings, model_.cores())),
        weights_(problem.split.training.to(at::kDouble)),
        seen_(problem.values * weights_),
        share_(1.0 / weights_.sum().item<double>()) {}

  void step() {
    optimizer_->step([this] {
      ++gradients_;
      return evaluate();
    });
  }

  /// At the current weights, which do not change.
  Moment look(int64_t iteration) {
    Moment moment;
    moment.iteration = iteration;
    moment.loss = evaluate().item<double>();
    monitor_.record();
    moment.deviation = monitor_.deviations().select(0, -1).item<double>();
    moment.predicted_rate = monitor_.rates().select(0, -1).item<double>();
    const auto seen = steppe::tensorized::norm_deviation(model_.cores());
    moment.correlation = correlation_of(seen);
    moment.squared_norm = seen.core_squares.sum().item<double>();
    const at::Tensor fitted = this->fitted();
    moment.training = r_squared(problem_.values, fitted, problem_.split.training);
    moment.validation = r_squared(problem_.values, fitted, problem_.split.validation);
    moment.held_out = r_squared(problem_.values, fitted, problem_.split.held_out);
    return moment;
  }

  at::Tensor fitted() const {
    const at::NoGradGuard no_grad;
    return model_.full();
  }
  int64_t gradients() const { return gradients_; }

 private:
  at::Tensor evaluate() {
    optimizer_->zero_grad();
    // Every entry is computed and those that are not trained on count 0: faster than gathering single entries.
    at::Tensor loss = at::mse_loss(model_.full() * weights_, seen_, at::Reduction::Sum) * share_;
    loss.backward();
    return loss;
  }

  const Problem& problem_;
  TuckerModel model_;
  steppe::tensorized::DeviationMonitor monitor_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  at::Tensor weights_, seen_;
  double share_;
  int64_t gradients_ = 0;
};

}  // namespace

const Moment& Completion::best_by_validation() const {
  const Moment* best = &moments.back();
  for (const Moment& moment : moments)
    if (moment.validation > best->validation || (std::isnan(best->validation) && !std::isnan(moment.validation)))
      best = &moment;
  return *best;
}

std::vector<int64_t> looked_at(int64_t iterations) {
  std::set<int64_t> all = {0, iterations};
  for (int64_t i = 1; i < 100; ++i) all.insert(iterations * i / 100);
  for (double power = 0.0; power < std::log10(static_cast<double>(iterations)); power += 0.1)
    all.insert(std::min<int64_t>(std::llround(std::pow(10.0, power)), iterations));
  return {all.begin(), all.end()};
}

Completion train(const Problem& problem, const TrainingSettings& settings, const GoOn& go_on) {
  Training training(problem, settings);
  Completion completion;
  const std::vector<int64_t> looks = looked_at(settings.iterations);
  auto next = looks.begin();
  const double start = presentation::seconds_now();
  int64_t iteration = 0;
  for (;; ++iteration) {
    if (next != looks.end() && *next == iteration) {
      completion.moments.push_back(training.look(iteration));
      ++next;
    }
    if (iteration == settings.iterations || !go_on(iteration)) break;
    training.step();
  }
  completion.finished = iteration == settings.iterations;
  if (completion.last().iteration != iteration) completion.moments.push_back(training.look(iteration));
  completion.seconds = presentation::seconds_now() - start;
  completion.fitted = training.fitted();
  completion.gradients = training.gradients();
  return completion;
}

}  // namespace completion
