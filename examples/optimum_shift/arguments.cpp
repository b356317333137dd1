// SPDX-License-Identifier: MIT
#include "optimum_shift/arguments.hpp"

#include <algorithm>

#include "cifar/models.hpp"
#include "cifar/optimizer_name.hpp"
#include "presentation/command_line.hpp"

namespace shifting {
namespace {

using presentation::CommandLine;
using presentation::count;
using presentation::not_negative;
using presentation::number;
using presentation::share;

constexpr char kDescription[] =
    "Trains CIFAR classifiers and moves their final layer to the smallest weights with the same outputs on given\n"
    "images (optimum shifting, arXiv 2405.14111): once after training (OS), and every few steps of its late part\n"
    "(SOS). Each is done twice: kept only if the loss on the measured training images does not rise, and kept\n"
    "always. Loss, accuracy, norms and sharpness before and after go into one page with tables and pictures.\n";
constexpr char kFooter[] =
    "\nExamples:\n"
    "  steppe-optimum-shift --out shifts\n"
    "  steppe-optimum-shift --data cifar-10-batches-bin --model resnet20 --epochs 30 --every 500 --seeds 1\n"
    "  steppe-optimum-shift --batch 16 --ridge 10 --tolerance 0.01 --label-noise 0.4\n";

/// What the user may leave unset.
struct Given {
  std::optional<std::string> model;
  std::optional<int64_t> train_size, test_size, epochs, batch_size;
  std::optional<double> label_noise;
};

void add_training(CommandLine& app, Arguments& arguments, Given& given) {
  const char* group = "Training";
  app.add("--data", arguments.data, "Folder of CIFAR-10 or CIFAR-100 (default: the sample)", "DIR", group);
  app.add("--train-size", given.train_size, "Only the first N training images", "N", group)->check(count());
  app.add("--test-size", given.test_size, "Only the first N test images", "N", group)->check(count());
  app.add("--label-noise", given.label_noise, "Share of the training labels made wrong (default: 0)", "SHARE", group)
      ->check(share());
  app.add("--model", given.model, "small, resnet20 or resnet18 (default: sample small, else resnet20)", "MODEL", group)
      ->check(presentation::one_of(cifar::model_names()));
  app.add("--optimizers", arguments.optimizers, "As in steppe-cifar", "NAME,NAME...", group)
      ->delimiter(',')
      ->capture_default_str();
  app.add("--epochs", given.epochs, "Passes over the training images (default: 20 on the sample, else 30)", "N", group)
      ->check(count());
  app.add("--train-batch", given.batch_size, "Images per step (default: sample 64, else 128)", "N", group)
      ->check(count());
  app.add("--seeds", arguments.seeds, "Number of seeds, from --seed on", "N", group)
      ->check(number(1, 1000, "from 1 to 1000"))
      ->capture_default_str();
}

void add_shifting(CommandLine& app, Settings& settings) {
  const char* group = "Shifting";
  app.add("--batch", settings.batch, "Images of a small batch; fewer than the layer has inputs, or nothing moves", "N",
          group)
      ->check(count())
      ->capture_default_str();
  app.add("--every", settings.every, "Steps between two shifts of SOS", "N", group)
      ->check(count())
      ->capture_default_str();
  app.add("--from", settings.from, "Share of the training after which SOS begins", "SHARE", group)
      ->check(share())
      ->capture_default_str();
  app.add("--tolerance", settings.tolerance, "Rise of the loss up to which a shift is kept, where it is judged", "X",
          group)
      ->check(not_negative())
      ->capture_default_str();
  app.add("--ridge", settings.ridge, "Ridge of the shift on all images", "X", group)
      ->check(number(1e-300, 1e300, "a number over 0"))
      ->capture_default_str();
  app.add_flag("--include-bias", settings.include_bias, "The bias takes part; else it stays")->group(group);
  app.add_flag("--forget-momentum", settings.forget_momentum, "The momentum of what was moved starts anew")
      ->group(group);
}

void add_measuring(CommandLine& app, Settings& settings) {
  const char* group = "Measuring";
  app.add("--images", settings.images, "The first N training images: to judge shifts and to measure sharpness", "N",
          group)
      ->check(count())
      ->capture_default_str();
  app.add("--vectors", settings.vectors, "Random vectors of the traces", "N", group)
      ->check(number(2, 1e6, "2 or more"))
      ->capture_default_str();
  app.add("--radius", settings.radius, "Radius of the landscape, in lengths of the weights", "X", group)
      ->check(number(1e-12, 1e6, "a number over 0"))
      ->capture_default_str();
  app.add("--points", settings.points, "Points of the landscape along each direction", "N", group)
      ->check(number(2, 1001, "from 2 to 1001"))
      ->capture_default_str();
}

void resolve_training(const Given& given, Arguments& arguments) {
  const bool quick = arguments.study.quick, sample = arguments.data.empty();
  arguments.training.sample = sample;
  cifar::RunSettings& run = arguments.training.settings = cifar::fitting_settings(sample);
  run.model = given.model.value_or(run.model);
  run.train_size = given.train_size.value_or(quick ? 256 : 0);
  run.test_size = given.test_size.value_or(quick ? 256 : 0);
  run.epochs = given.epochs.value_or(quick ? 6 : run.epochs);
  run.batch_size = given.batch_size.value_or(run.batch_size);
  run.label_noise = given.label_noise.value_or(0.0);
  run.evaluate_every = run.epochs;
  run.warm_up = std::min(run.warm_up, static_cast<double>(run.epochs));
}

/// What --quick changes, unless the user sets it.
void make_quick(const CommandLine& app, Arguments& arguments) {
  const auto otherwise = [&](const char* option, auto& value, auto quick) {
    if (app.count(option) == 0) value = quick;
  };
  otherwise("--seeds", arguments.seeds, 1);
  otherwise("--every", arguments.settings.every, int64_t{4});
  otherwise("--images", arguments.settings.images, int64_t{128});
  otherwise("--vectors", arguments.settings.vectors, int64_t{4});
  otherwise("--points", arguments.settings.points, int64_t{7});
}

void resolve(const CommandLine& app, const Given& given, Arguments& arguments) {
  if (arguments.study.quick) make_quick(app, arguments);
  resolve_training(given, arguments);
  arguments.settings.seed = arguments.study.seed;
  for (const std::string& name : arguments.optimizers) cifar::OptimizerName::parse(name);
}

}  // namespace

std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments) {
  CommandLine app("steppe-optimum-shift", kDescription, kFooter);
  Given given;
  arguments.study.out = "optimum-shift-results";
  add_training(app, arguments, given);
  add_shifting(app, arguments.settings);
  add_measuring(app, arguments.settings);
  presentation::add_study_options(app, arguments.study, "Few images, epochs and draws, one seed: to see it work");
  return app.read(argc, argv, [&] { resolve(app, given, arguments); });
}

}  // namespace shifting
