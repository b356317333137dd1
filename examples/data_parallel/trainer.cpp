// The training of one process.
// SPDX-License-Identifier: MIT
#include "trainer.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/functional/loss.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/utils.h>

#include <algorithm>
#include <steppe/optimizers.hpp>
#include <utility>

#include "augmentation.hpp"

namespace data_parallel {

/// What the training needs of each method.
class Trainer::AnyOptimizer {
 public:
  virtual ~AnyOptimizer() = default;
  virtual at::Tensor step(int64_t parts, const std::function<at::Tensor(int64_t)>& part) = 0;
  virtual void exchange(std::shared_ptr<steppe::GradientExchange> exchange) = 0;
  virtual void save(torch::serialize::OutputArchive& archive) const = 0;
  virtual void load(torch::serialize::InputArchive& archive) = 0;
};

namespace {

template <class Optimizer>
class Over : public Trainer::AnyOptimizer {
 public:
  Over(const cifar::ResNet& model, const Settings& settings)
      : optimizer_(*model, torch::optim::SGDOptions(settings.learning_rate).momentum(0.9).weight_decay(5e-4)),
        perturb_(settings.perturb == "each" ? steppe::Perturb::Each : steppe::Perturb::Together) {
    optimizer_.options().rho(settings.method == "sgd" ? 0.0 : settings.rho);
    optimizer_.perturb(perturb_);
  }
  at::Tensor step(int64_t parts, const std::function<at::Tensor(int64_t)>& part) override {
    return optimizer_.step(parts, part);
  }
  void exchange(std::shared_ptr<steppe::GradientExchange> exchange) override {
    optimizer_.exchange(std::move(exchange), perturb_);
  }
  void save(torch::serialize::OutputArchive& archive) const override { optimizer_.save(archive); }
  void load(torch::serialize::InputArchive& archive) override { optimizer_.load(archive); }

 private:
  Optimizer optimizer_;
  steppe::Perturb perturb_;
};

std::unique_ptr<Trainer::AnyOptimizer> optimizer_of(const cifar::ResNet& model, const Settings& settings) {
  using torch::optim::SGD;
  if (settings.method == "asam") return std::make_unique<Over<steppe::ASAM<SGD>>>(model, settings);
  if (settings.method == "zsharp") return std::make_unique<Over<steppe::ZSharp<SGD>>>(model, settings);
  if (settings.method == "gcsam") return std::make_unique<Over<steppe::GCSAM<SGD>>>(model, settings);
  return std::make_unique<Over<steppe::SAM<SGD>>>(model, settings);
}

at::Generator generator(uint64_t seed, int64_t number) {
  return at::detail::createCPUGenerator(seed * 1000003U + static_cast<uint64_t>(number));
}

}  // namespace

const std::vector<std::string>& method_names() {
  static const std::vector<std::string> names = {"sgd", "sam", "asam", "zsharp", "gcsam"};
  return names;
}

Trainer::Trainer(const cifar::Dataset& data, const Settings& settings, int64_t process, int64_t processes)
    : data_(data),
      settings_(settings),
      process_(process),
      processes_(processes),
      model_(cifar::make_model(settings.model, data.classes, settings.seed)),
      optimizer_(optimizer_of(model_, settings)) {
  const int64_t shares = processes * settings.parts;
  TORCH_CHECK(settings.batch % shares == 0, "a batch of ", settings.batch, " cannot be divided among ", processes,
              " processes with ", settings.parts, " parts each; choose a multiple of ", shares);
  TORCH_CHECK(settings.batch <= data.train.labels.size(0), "a batch of ", settings.batch, " is more than the ",
              data.train.labels.size(0), " training images");
}

Trainer::~Trainer() = default;

void Trainer::exchange(std::shared_ptr<steppe::GradientExchange> exchange) {
  optimizer_->exchange(std::move(exchange));
}

bool Trainer::train(const std::function<bool(const Progress&)>& go_on) {
  const int64_t steps = settings_.epochs * (data_.train.labels.size(0) / settings_.batch);
  model_->train();
  while (step_ < steps) {
    begin_batch();
    const at::Tensor loss = optimizer_->step(settings_.parts, [this](int64_t index) { return part(index); });
    ++step_;
    if (!go_on({step_, steps, loss.item<double>()})) return step_ == steps;
  }
  return true;
}

/// The order of an epoch and the augmentation of a batch follow from the seed and the step alone: every process draws
/// the same, and a restart changes nothing.
void Trainer::begin_batch() {
  const int64_t batches = data_.train.labels.size(0) / settings_.batch;
  at::Generator order = generator(settings_.seed, 2 * (step_ / batches));
  const at::Tensor all = torch::randperm(data_.train.labels.size(0), order);
  const at::Tensor chosen = all.narrow(0, step_ % batches * settings_.batch, settings_.batch);
  at::Generator random = generator(settings_.seed, 2 * step_ + 1);
  images_ = cifar::crop_and_flip(data_.train.images.index_select(0, chosen), random);
  labels_ = data_.train.labels.index_select(0, chosen);
}

at::Tensor Trainer::part(int64_t index) {
  const int64_t count = settings_.batch / processes_ / settings_.parts;
  const int64_t first = (process_ * settings_.parts + index) * count;
  const at::Tensor inputs = cifar::normalized(images_.narrow(0, first, count), data_.mean, data_.deviation);
  at::Tensor loss = torch::nn::functional::cross_entropy(model_->forward(inputs), labels_.narrow(0, first, count));
  loss.backward();
  return loss;
}

double Trainer::test_accuracy() {
  const torch::NoGradGuard no_grad;
  model_->eval();
  int64_t right = 0;
  const int64_t images = data_.test.labels.size(0);
  for (int64_t first = 0; first < images; first += 250) {
    const int64_t count = (std::min)(int64_t{250}, images - first);
    const at::Tensor inputs = cifar::normalized(data_.test.images.narrow(0, first, count), data_.mean, data_.deviation);
    right += (model_->forward(inputs).argmax(1) == data_.test.labels.narrow(0, first, count)).sum().item<int64_t>();
  }
  model_->train();
  return static_cast<double>(right) / static_cast<double>(images);
}

void Trainer::save(const std::filesystem::path& file) const {
  torch::serialize::OutputArchive archive, model, optimizer;
  model_->save(model);
  optimizer_->save(optimizer);
  archive.write("model", model);
  archive.write("optimizer", optimizer);
  archive.write("step", c10::IValue(step_));
  const std::filesystem::path draft = file.string() + ".new";
  archive.save_to(draft.string());
  std::filesystem::rename(draft, file);
}

void Trainer::load(const std::filesystem::path& file) {
  torch::serialize::InputArchive archive, model, optimizer;
  archive.load_from(file.string());
  c10::IValue step;
  archive.read("model", model);
  archive.read("optimizer", optimizer);
  archive.read("step", step);
  model_->load(model);
  optimizer_->load(optimizer);
  step_ = step.toInt();
}

double difference(const torch::nn::Module& a, const torch::nn::Module& b) {
  const auto ours = a.parameters(), theirs = b.parameters();
  double largest = 0.0;
  for (size_t i = 0; i < ours.size(); ++i)
    largest = (std::max)(largest, (ours[i] - theirs[i]).abs().max().item<double>());
  return largest;
}

}  // namespace data_parallel
