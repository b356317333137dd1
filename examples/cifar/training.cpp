// SPDX-License-Identifier: MIT
#include "training.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "augmentation.hpp"
#include "presentation/clock.hpp"

namespace cifar {
namespace {

constexpr int64_t kMeasuredImages = 2000;
constexpr int64_t kEvaluationBatch = 500;
// Streams of random numbers of one seed: initial weights use the seed itself.
constexpr uint64_t kNoiseStream = 0x6e6f697365, kOrderStream = 0x6f72646572;
constexpr double kAveragedFrom = 0.75;  // of the epochs, by swa
enum Sum : int64_t { Loss, Hits, Images, Sharpness, SharpnessSteps, kSums };

at::Tensor hits(const at::Tensor& logits, const at::Tensor& labels) { return (logits.argmax(1) == labels).sum(); }

OptimizerSettings optimizer_settings(const RunSettings& run) {
  return {run.learning_rate, run.momentum,   run.weight_decay,           run.rho,      run.percentile, run.alpha,
          run.interval,      run.tail_share, run.epochs * run.batches(), run.batches(), run.fused};
}

/// BatchNorm's statistics are averaged like the weights for ema, and recomputed for swa. With the warm-up a few hundred
/// steps are enough for an average.
std::unique_ptr<steppe::training::AveragedWeights> make_average(const RunSettings& run, const ResNet& model) {
  using namespace steppe::training;
  if (run.average == "none") return nullptr;
  if (run.average == "ema") return std::make_unique<AveragedWeights>(model, ema(run.average_decay).warm_up().buffers());
  if (run.average == "swa") return std::make_unique<AveragedWeights>(model, swa());
  throw std::runtime_error("there is no average '" + run.average + "'; choose none, ema or swa");
}

}  // namespace

double schedule_factor(const std::string& schedule, int64_t step, int64_t warm_up, int64_t total) {
  if (step < warm_up) return static_cast<double>(step + 1) / static_cast<double>(warm_up);
  const double t = static_cast<double>(step - warm_up) / static_cast<double>(std::max<int64_t>(total - warm_up, 1));
  if (schedule == "cosine") return (1.0 + std::cos(3.14159265358979323846 * t)) / 2.0;
  if (schedule == "step") return t < 0.5 ? 1.0 : t < 0.75 ? 0.1 : 0.01;
  if (schedule == "constant") return 1.0;
  throw std::runtime_error("there is no schedule '" + schedule + "'; choose cosine, step or constant");
}

Run::Run(const Dataset& data, const RunSettings& settings)
    : data_(data),
      settings_(settings),
      model_(make_model(settings.model, data.classes, settings.seed, settings.tensorize, settings.compression)),
      random_(at::make_generator<at::CPUGeneratorImpl>(settings.seed ^ kOrderStream)) {
  const auto device = data.train.images.device();
  labels_ = with_label_noise(data.train.labels.cpu(), settings.label_noise, data.classes, settings.seed ^ kNoiseStream)
                .to(device);
  model_->to(device);
  // Convolutions are faster with the channels innermost; LibTorch's LBFGS stops at such parameters.
  const OptimizerName name = OptimizerName::parse(settings.optimizer);
  for (const at::Tensor& parameter : model_->parameters())
    if (parameter.dim() == 4 && name.base != "lbfgs")
      parameter.set_data(parameter.data().contiguous(at::MemoryFormat::ChannelsLast));
  optimizer_ = make_optimizer(name, *model_, optimizer_settings(settings));
  average_ = make_average(settings, model_);
  order_ = at::empty({0}, at::kLong);
  sums_ = at::zeros({kSums}, at::TensorOptions(at::kDouble).device(device));
}

at::Tensor Run::inputs(const at::Tensor& images) const {
  return normalized(images, data_.mean, data_.deviation).contiguous(at::MemoryFormat::ChannelsLast);
}

double Run::learning_rate(int64_t batch) const {
  const int64_t batches = settings_.batches();
  const auto warm_up = static_cast<int64_t>(std::llround(settings_.warm_up * static_cast<double>(batches)));
  return settings_.learning_rate *
         schedule_factor(settings_.schedule, epoch_ * batches + batch, warm_up, settings_.epochs * batches);
}

Moment Run::moment() const {
  const at::Tensor sums = sums_.cpu();
  const double images = sums[Images].item<double>();
  return {epoch_ + 1, settings_.epochs, static_cast<int64_t>(images), sums[Loss].item<double>() / images,
          sums[Hits].item<double>() / images};
}

void Run::train_batch() {
  torch::optim::Optimizer& optimizer = *optimizer_.optimizer;
  for (auto& group : optimizer.param_groups()) group.options().set_lr(learning_rate(batch_));
  const int64_t from = batch_ * settings_.batch_size;
  const at::Tensor chosen =
      order_.slice(0, from, std::min(from + settings_.batch_size, settings_.train_size)).to(labels_.device());
  at::Tensor images = data_.train.images.index({chosen});
  if (settings_.augment) images = crop_and_flip(images, random_);
  const at::Tensor input = inputs(images), labels = labels_.index({chosen});

  at::Tensor first_logits;  // those at w, as a rule: the closure may run several times
  const auto pass = [&] {
    gradients_ += 1.0;
    optimizer.zero_grad();
    const at::Tensor logits = model_(input);
    if (!first_logits.defined()) first_logits = logits.detach();
    at::Tensor mean_loss = at::cross_entropy_loss(logits, labels);
    mean_loss.backward();
    return mean_loss;
  };
  const auto loss_alone = [&] {
    const c10::NoGradGuard no_grad;
    return at::cross_entropy_loss(model_(input), labels);
  };
  at::Tensor loss;
  if (settings_.plain_loop) {
    loss = pass();
    optimizer.step();
    if (optimizer_.perturbed && optimizer_.perturbed()) gradients_ += 1.0;  // the step's own pass
  } else if (optimizer_.step_with_loss) {
    loss = optimizer_.step_with_loss(pass, loss_alone);
  } else {
    loss = optimizer.step(pass);
  }
  if (settings_.average == "ema") average_->update();

  const c10::NoGradGuard no_grad;
  const auto count = static_cast<double>(chosen.size(0));
  sums_[Loss] += loss.detach() * count;
  sums_[Hits] += hits(first_logits, labels);
  sums_[Images] += count;
  const at::Tensor sharpness = optimizer_.sharpness ? optimizer_.sharpness() : at::Tensor();
  if (!sharpness.defined()) return;
  sums_[Sharpness] += sharpness.detach();
  sums_[SharpnessSteps] += 1.0;
}

void Run::finish_epoch() {
  EpochRecord& record = history_.emplace_back();
  record.epoch = epoch_ + 1;
  record.learning_rate = learning_rate(batch_ - 1);
  const Moment whole = moment();
  record.train_loss = whole.loss;
  record.train_accuracy = whole.accuracy;
  record.seen_sharpness = (sums_[Sharpness] / sums_[SharpnessSteps]).item<double>();
  if (!std::isfinite(whole.loss))
    throw std::runtime_error(settings_.optimizer + " diverged: the loss of epoch " + std::to_string(record.epoch) +
                             " is not finite; lower --lr or --rho");
  ++epoch_;
  if (settings_.average == "swa" && static_cast<double>(epoch_) > kAveragedFrom * static_cast<double>(settings_.epochs))
    average_->update();
  record.gradients = gradients_ / static_cast<double>(epoch_ * settings_.batches());
  batch_ = 0;
  sums_.zero_();
}

bool Run::train(const std::function<bool()>& go_on, const std::function<void(const EpochRecord&)>& after_epoch) {
  while (epoch_ < settings_.epochs) {
    double start = presentation::seconds_now();
    model_->train();
    if (batch_ == 0) order_ = at::randperm(settings_.train_size, random_, at::kLong);
    while (batch_ < settings_.batches()) {
      train_batch();
      ++batch_;
      if (!go_on()) {
        seconds_ += presentation::seconds_now() - start;
        return false;
      }
    }
    finish_epoch();
    seconds_ += presentation::seconds_now() - start;
    EpochRecord& record = history_.back();
    record.seconds = seconds_;
    if (epoch_ % settings_.evaluate_every == 0 || epoch_ == settings_.epochs) {
      const Evaluation test = evaluate(data_.test);
      record.test_loss = test.loss;
      record.test_accuracy = test.accuracy;
    }
    after_epoch(record);
  }
  return true;
}

Evaluation Run::evaluate(const at::Tensor& images, const at::Tensor& labels, bool with_gradients) {
  const c10::AutoGradMode mode(with_gradients);
  model_->eval();
  const int64_t count = labels.size(0);
  double loss = 0.0;
  int64_t right = 0;
  for (int64_t from = 0; from < count; from += kEvaluationBatch) {
    const at::Tensor logits = model_(inputs(images.slice(0, from, from + kEvaluationBatch)));
    const at::Tensor wanted = labels.slice(0, from, from + kEvaluationBatch);
    const at::Tensor share =
        at::cross_entropy_loss(logits, wanted, {}, at::Reduction::Sum) / static_cast<double>(count);
    if (with_gradients) share.backward();
    loss += share.item<double>();
    right += hits(logits, wanted).item<int64_t>();
  }
  return {loss, static_cast<double>(right) / static_cast<double>(count)};
}

void Run::with_average(const std::function<void()>& look) {
  if (!average_ || average_->updates() == 0) return look();
  const auto swapped = average_->swap();
  if (settings_.average == "swa")
    steppe::training::recompute_statistics(model_, data_.train.images.split(kEvaluationBatch),
                                           [this](const at::Tensor& images) { model_(inputs(images)); });
  look();
}

Evaluation Run::evaluate(const Split& split) {
  Evaluation result{};
  with_average([&] { result = evaluate(split.images, split.labels, false); });
  return result;
}

Measurement Run::measure() {
  const at::Tensor images = data_.train.images.slice(0, 0, kMeasuredImages);
  const at::Tensor labels = labels_.slice(0, 0, kMeasuredImages);
  Measurement result;
  with_average([&] {
    optimizer_.optimizer->zero_grad();
    const Evaluation here = evaluate(images, labels, true);
    const double uphill = loss_uphill(model_->parameters(), settings_.sharpness_rho,
                                      [&] { return evaluate(images, labels, false).loss; });
    optimizer_.optimizer->zero_grad();
    result = {here.loss, here.accuracy, uphill - here.loss};
  });
  return result;
}

}  // namespace cifar
