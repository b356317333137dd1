// steppe-cifar: trains on CIFAR with any base optimizer and any sharpness-aware method, or compares them.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>
#include <torch/cuda.h>

#include <cstdio>
#include <stdexcept>
#include <string>

#include "arguments.hpp"
#include "comparison.hpp"
#include "dataset.hpp"
#include "models.hpp"
#include "optimizer_name.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/program.hpp"
#include "report.hpp"

namespace {

using cifar::Arguments;
using cifar::Comparison;
using cifar::Dataset;
using cifar::Outcome;
using cifar::RunSettings;

/// The data set, cut to the given sizes, on the device; the sizes go into the settings.
Dataset load(Arguments& arguments) {
  if (arguments.device == "cuda" && !torch::cuda::is_available())
    throw std::runtime_error("--device cuda: this LibTorch sees no CUDA device; use --device cpu");
  RunSettings& settings = arguments.settings;
  const Dataset data = cifar::cut(cifar::load_dataset(arguments.data), settings.train_size, settings.test_size,
                                  at::Device(arguments.device == "cuda" ? at::kCUDA : at::kCPU));
  settings.dataset = data.name;
  settings.train_size = data.train.labels.size(0);
  settings.test_size = data.test.labels.size(0);
  return data;
}

Comparison plan(const Arguments& arguments) {
  Comparison comparison;
  comparison.out = arguments.out;
  comparison.resume = arguments.resume;
  for (const uint64_t seed : arguments.seeds)
    for (const std::string& optimizer : arguments.optimizers) {
      comparison.runs.push_back(arguments.run(optimizer, seed));
      comparison.checkpoints.push_back(arguments.checkpoint_of(comparison.runs.back()));
    }
  return comparison;
}

void introduce(const Arguments& arguments, int64_t classes) {
  const RunSettings& settings = arguments.settings;
  std::printf("%s%s: %lld training and %lld test images, %g %% of the training labels wrong, %s\n",
              settings.dataset.c_str(), arguments.sample ? " (bundled sample)" : "",
              static_cast<long long>(settings.train_size), static_cast<long long>(settings.test_size),
              100.0 * settings.label_noise, settings.augment ? "random crops and flips" : "no augmentation");
  const bool by_gradients = arguments.budget == "gradients";
  std::printf("model %s, batches of %lld, %lld epochs%s, %s schedule, %s, %d threads\n", settings.model.c_str(),
              static_cast<long long>(settings.batch_size), static_cast<long long>(settings.epochs),
              by_gradients ? " or as many gradients" : "", settings.schedule.c_str(), arguments.device.c_str(),
              at::get_num_threads());
  if (settings.average != "none") std::printf("evaluated: the %s of the weights\n", settings.average.c_str());
  if (settings.tensorize != "none") {
    const cifar::ResNet model = cifar::make_model(settings.model, classes, 0, settings.tensorize, settings.compression);
    std::printf("tensorized (%s): %lld parameters instead of %lld, %lld layers in cores\n", settings.tensorize.c_str(),
                static_cast<long long>(cifar::parameters_of(*model)),
                static_cast<long long>(cifar::parameters_of(*cifar::make_model(settings.model, classes, 0))),
                static_cast<long long>(cifar::cores_of(*model).size()));
  }
  for (const std::string& optimizer : arguments.optimizers) {
    const RunSettings run = arguments.run(optimizer, 0);
    std::printf("  %-10s lr %g", optimizer.c_str(), run.learning_rate);
    const cifar::OptimizerName name = cifar::OptimizerName::parse(optimizer);
    const std::string& method = name.method;
    if (method == "das")
      std::printf(", alpha %g", run.alpha);
    else if (!method.empty())
      std::printf(", rho %g", run.rho);
    if (method == "tail") std::printf(", the last %g %% of the steps", 100.0 * run.tail_share);
    if (method == "looksam" || method == "every")
      std::printf(", every %lld steps", static_cast<long long>(name.interval(run.interval)));
    if (by_gradients) std::printf(", %lld epochs", static_cast<long long>(run.epochs));
    std::printf("\n");
  }
  std::printf("\n");
}

/// For the bundled sample: what a few minutes of training show, and what they do not.
void demo_note(const RunSettings& settings) {
  if (settings.label_noise > 0.0)
    std::printf(
        "What this shows: %g %% of the training labels are wrong, and the train columns count them as they are.\n"
        "Near 100 %% there, wrong labels have been memorized; the test images show what that costs.\n",
        100.0 * settings.label_noise);
  std::printf(
      "What it is too small to show: which method is best. These are %lld images, a small network, few epochs.\n"
      "The radii were chosen for this sample (with other seeds), the learning rate was not: sgd gains from a\n"
      "larger one (--lr sgd=0.4). For figures that mean more use a full data set: --data.\n\n",
      static_cast<long long>(settings.train_size));
}

void close(const Arguments& arguments, const Comparison& comparison, const Outcome& outcome) {
  std::printf("\n%s\n", presentation::text_of(cifar::table(outcome.results)).c_str());
  std::printf("%s\n", cifar::conclusions(outcome.results).c_str());
  if (arguments.sample && arguments.compare) demo_note(arguments.settings);
  std::printf("Results: %s (curves.svg and curves.csv beside it)\n", (comparison.out / "index.html").c_str());
  if (!outcome.finished)
    std::printf("Interrupted. Continue with the same options and --resume %s\n", arguments.checkpoint.c_str());
}

int run(int argc, char** argv) {
  Arguments arguments;
  if (const auto code = cifar::parse_arguments(argc, argv, arguments)) return *code;
  if (arguments.threads > 0) at::set_num_threads(arguments.threads);
  const Dataset data = load(arguments);
  const Comparison comparison = plan(arguments);
  cifar::prepare(comparison, data);
  introduce(arguments, data.classes);
  presentation::catch_interrupts();
  const Outcome outcome = cifar::carry_out(comparison, data);
  close(arguments, comparison, outcome);
  return outcome.finished ? 0 : presentation::kInterrupted;
}

}  // namespace

int main(int argc, char** argv) {
  return presentation::carried_out("steppe-cifar", [&] { return run(argc, argv); });
}
