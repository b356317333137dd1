// SPDX-License-Identifier: MIT
#include "network.hpp"

#include <ATen/ATen.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/utils.h>

#include <memory>
#include <stdexcept>
#include <steppe/optimizers.hpp>
#include <steppe/sharpness/eigenvalues.hpp>

#include "decomposition.hpp"
#include "gradient_step.hpp"
#include "presentation/formatted.hpp"

namespace statistics {
namespace {

/// Rows of pixels, and labels, of the images of two classes.
void choose(const cifar::Dataset& data, const cifar::Split& split, int64_t first, int64_t second, at::Tensor& images,
            at::Tensor& labels) {
  const at::Tensor which = ((split.labels == first) + (split.labels == second)).nonzero().squeeze(1);
  labels = (split.labels.index({which}) == second).to(at::kLong);
  if (labels.numel() == 0 || labels.min().item<int64_t>() == 1 || labels.max().item<int64_t>() == 0)
    throw std::runtime_error("--classes: the data set holds no images of one of the classes " + std::to_string(first) +
                             " and " + std::to_string(second));
  at::Tensor pixels = at::avg_pool2d(split.images.index({which}).to(at::kFloat) / 255.0, {2, 2});
  for (int64_t c = 0; c < 3; ++c)
    pixels.select(1, c).sub_(data.mean[static_cast<size_t>(c)]).div_(data.deviation[static_cast<size_t>(c)]);
  images = pixels.flatten(1).contiguous();
}

torch::nn::Sequential network(int64_t inputs, int64_t hidden, uint64_t seed) {
  torch::manual_seed(seed);
  return torch::nn::Sequential(torch::nn::Linear(inputs, hidden), torch::nn::ReLU(), torch::nn::Linear(hidden, 1));
}

/// GD and un-normalised SAM step a plain SGD, SAM is steppe's.
class Trainer {
 public:
  Trainer(const torch::nn::Sequential& model, const Method& method, double learning_rate) : method_(method) {
    const torch::optim::SGDOptions options(learning_rate);
    if (method.kind == Method::Kind::Sam) {
      auto sam = std::make_unique<steppe::SAM<torch::optim::SGD>>(model->parameters(), options,
                                                                  steppe::Options().rho(method.rho));
      sam_ = sam.get();
      optimizer_ = std::move(sam);
    } else {
      optimizer_ = std::make_unique<torch::optim::SGD>(model->parameters(), options);
    }
  }

  /// Returns the loss before the step.
  at::Tensor step(const std::function<at::Tensor()>& loss_of) {
    const auto closure = [&] {
      optimizer_->zero_grad();
      const at::Tensor loss = loss_of();
      loss.backward();
      return loss;
    };
    if (sam_ != nullptr) return sam_->step(closure);
    return gradient_step(*optimizer_, method_.kind == Method::Kind::UnnormalisedSam ? method_.rho : 0.0, closure);
  }

 private:
  Method method_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  steppe::SAM<torch::optim::SGD>* sam_ = nullptr;
};

void check_finite(double loss, const Method& method, const NetworkSettings& settings) {
  if (loss < 1e6) return;
  std::string rho = presentation::formatted(" and rho %g", method.rho);
  if (method.kind == Method::Kind::GradientDescent) rho = "";
  throw std::runtime_error(presentation::formatted(
      "the network under %s diverges with a learning rate of %g%s; take a smaller %s", method.name.c_str(),
      settings.learning_rate, rho.c_str(), rho.empty() ? "--lr" : "one (--lr, --sam-rho, --gradient-rho)"));
}

double top_eigenvalue(torch::nn::Sequential& model, const std::function<at::Tensor()>& loss_of) {
  steppe::sharpness::LossSurface surface(*model, loss_of);
  return steppe::sharpness::eigenvalues(steppe::sharpness::Hessian(surface),
                                        steppe::sharpness::EigenvalueOptions().tolerance(1e-3))
      .values.front();
}

}  // namespace

TwoClasses two_classes(const cifar::Dataset& data, int64_t first, int64_t second) {
  for (const int64_t label : {first, second})
    if (label < 0 || label >= data.classes)
      throw std::runtime_error("--classes: there is no class " + std::to_string(label) + ", " + data.name +
                               " has 0 to " + std::to_string(data.classes - 1));
  if (first == second)
    throw std::runtime_error("--classes: two different ones are needed, not " + std::to_string(first) + " twice");
  TwoClasses chosen;
  choose(data, data.train, first, second, chosen.train_images, chosen.train_labels);
  choose(data, data.test, first, second, chosen.test_images, chosen.test_labels);
  return chosen;
}

at::Tensor signs(const at::Tensor& labels) { return labels.to(at::kFloat) * 2.0 - 1.0; }

std::optional<Trained> trained(const TwoClasses& data, const at::Tensor& noisy_labels, const Method& method,
                               const NetworkSettings& settings, uint64_t seed, const std::function<bool()>& go_on) {
  torch::nn::Sequential model = network(data.train_images.size(1), settings.hidden, seed);
  Trainer trainer(model, method, settings.learning_rate);
  const at::Tensor y = signs(noisy_labels);
  const std::function<at::Tensor()> loss_of = [&] {
    return (model->forward(data.train_images).squeeze(1) - y).square().mean() / 2.0;
  };
  std::vector<at::Tensor> predictions;
  int64_t k = 0;
  for (const int64_t step : settings.steps) {
    for (; k < step; ++k) {
      if (!go_on()) return std::nullopt;
      check_finite(trainer.step(loss_of).item<double>(), method, settings);
    }
    const at::NoGradGuard no_grad;
    predictions.push_back(model->forward(data.test_images).squeeze(1));
  }
  return Trained{at::stack(predictions), top_eigenvalue(model, loss_of)};
}

NetworkCurves curves_of(const std::vector<Trained>& draws, const at::Tensor& test_labels) {
  std::vector<at::Tensor> predictions;
  NetworkCurves curves;
  for (const Trained& draw : draws) {
    predictions.push_back(draw.predictions);
    curves.top_eigenvalue += draw.top_eigenvalue / static_cast<double>(draws.size());
  }
  // Without noise every draw is the same one.
  if (predictions.size() == 1) predictions.push_back(predictions.front());
  const at::Tensor all = at::stack(predictions), truth = signs(test_labels);
  for (int64_t i = 0; i < all.size(1); ++i) {
    const at::Tensor now = all.select(1, i);
    const Decomposition parts = decomposed(now, truth);
    curves.bias.push_back(parts.bias.value);
    curves.variance.push_back(parts.variance.value);
    curves.risk.push_back(parts.risk.value);
    curves.error.push_back((now * truth <= 0.0).to(at::kDouble).mean().item<double>());
  }
  return curves;
}

}  // namespace statistics
