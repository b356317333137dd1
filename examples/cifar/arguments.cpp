// SPDX-License-Identifier: MIT
#include "arguments.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "models.hpp"
#include "optimizer_name.hpp"
#include "presentation/command_line.hpp"

namespace cifar {
namespace {

constexpr char kDescription[] =
    "Trains CIFAR classifiers with the sharpness-aware optimizers of steppe, one or several against each other.\n"
    "Without --data it uses a sample of CIFAR-10 that comes with the program, and settings that fit its size.\n";
constexpr char kFooter[] =
    "\nNAME is a base (sgd, adam, adamw, rmsprop, adagrad, lbfgs), a method over sgd, or both, as in adam+zsharp.\n"
    "Methods of two gradients a step: sam, asam, zsharp, gcsam, gczsharp, friendly, vasso, ssam, gsam, wsam,\n"
    "stablesam, xsam; of fewer: tail, every, looksam, aesam, aelooksam; of one: msam, s2sam, and das, with\n"
    "--tensorize. Over rmsprop and adagrad there are sam, asam, zsharp, gcsam, gczsharp, tail, every, looksam, msam\n"
    "and das, over lbfgs the first seven of them.\n"
    "With --budget gradients a method of two gradients a step trains for half of --epochs, one of 1.2 for 1/1.2 of\n"
    "them (aesam and aelooksam count as 1.5); its learning rate falls to the end of its own epochs.\n\n"
    "Examples:\n"
    "  steppe-cifar --compare sgd,sam,zsharp,gcsam --seeds 3\n"
    "  steppe-cifar --data cifar-10-batches-bin --model resnet18 --optimizer zsharp --epochs 200 --device cuda\n"
    "  steppe-cifar --compare sgd,sam,das --tensorize tr --compression 5\n"
    "  steppe-cifar --compare adam,adam+sam --lr 0.002 --rho adam+sam=0.1 --out adam-results\n"
    "  steppe-cifar --compare sgd,sam,looksam,msam --budget gradients --epochs 40\n";

/// What fits a data set, as far as the user leaves it open.
struct Fitting {
  const char* model;
  int64_t epochs, batch_size, evaluate_every;
  double label_noise, warm_up;
  bool augment;
};
constexpr Fitting kSample = {"small", 20, 64, 2, 0.4, 0.0, false};
constexpr Fitting kFull = {"resnet20", 30, 128, 1, 0.0, 1.0, true};
constexpr int64_t kQuickEpochs = 2, kQuickImages = 256;

/// The options as given.
struct Given {
  std::string data, optimizer, out = "cifar-results", checkpoint, resume;
  std::vector<std::string> compare, learning_rates, rhos;
  std::optional<std::string> model;
  std::optional<int64_t> train_size, test_size, epochs, batch_size, evaluate_every;
  std::optional<double> label_noise, warm_up;
  bool augment = false, no_augment = false, quick = false;
  uint64_t seed = 0;
  int seeds = 1;
};

using presentation::CommandLine;
using presentation::count;
using presentation::not_negative;
using presentation::number;
using presentation::one_of;
using presentation::share;

void add_data_options(CommandLine& app, Given& given) {
  const char* group = "Data";
  app.add("--data", given.data,
          "Folder that is or contains cifar-10-batches-bin or cifar-100-binary (default: the sample)", "DIR", group);
  app.add("--train-size", given.train_size, "Only the first N training images", "N", group)->check(count());
  app.add("--test-size", given.test_size, "Only the first N test images", "N", group)->check(count());
  app.add("--label-noise", given.label_noise, "Share of the training labels made wrong (default: sample 0.4, else 0)",
          "SHARE", group)
      ->check(share());
  app.add_flag("--augment", given.augment, "Random crops and flips (default with --data)")->group(group);
  app.add_flag("--no-augment", given.no_augment, "Images as they are (default for the sample)")
      ->group(group)
      ->excludes("--augment");
}

void add_training_options(CommandLine& app, Given& given, Arguments& arguments) {
  const char* group = "Training";
  app.add("--model", given.model, "small, resnet20 or resnet18 (default: sample small, else resnet20)", "MODEL", group)
      ->check(one_of(model_names()));
  app.add("--tensorize", arguments.settings.tensorize,
          "Blocks' weights as cores: none, cp, tucker, tt or tr (train, ring)", "FORMAT", group)
      ->check(one_of(core_format_names()))
      ->capture_default_str();
  app.add("--compression", arguments.settings.compression,
          "Parameters of such a convolution over those of its cores, at least", "X", group)
      ->check(number(0.1, 1e6, "from 0.1 to 1000000"))
      ->capture_default_str();
  app.add("--epochs", given.epochs, "Passes over the training images (default: sample 20, else 30)", "N", group)
      ->check(count());
  app.add("--budget", arguments.budget, "Equal for all optimizers within --epochs: steps, or gradients", "KIND", group)
      ->check(one_of({"steps", "gradients"}))
      ->capture_default_str();
  app.add("--batch-size", given.batch_size, "Images per step (default: sample 64, else 128)", "N", group)
      ->check(count());
  app.add("--schedule", arguments.settings.schedule, "Learning rate schedule: cosine, step or constant", "KIND", group)
      ->check(one_of({"cosine", "step", "constant"}))
      ->capture_default_str();
  app.add("--warm-up", given.warm_up, "Epochs in which the learning rate rises (default: sample 0, else 1)", "EPOCHS",
          group)
      ->check(not_negative());
  app.add("--average", arguments.settings.average, "Tests an average of the weights: none, ema or swa", "KIND", group)
      ->check(one_of({"none", "ema", "swa"}))
      ->capture_default_str();
  app.add("--average-decay", arguments.settings.average_decay, "Largest decay of ema per step", "X", group)
      ->check(share())
      ->capture_default_str();
  app.add_flag("--plain-loop", arguments.settings.plain_loop,
               "Train without a closure; the numbers are the same, to the last digit")
      ->group(group);
  app.add_flag("--fused", arguments.settings.fused,
               "The base's step in one pass over memory; its weights differ by rounding (not for lbfgs)")
      ->group(group);
  app.add("--seed", given.seed, "Draws the initial weights, the order of the data, the noise", "S", group)
      ->check(number(0.0, 1e15, "a whole number from 0 on"))
      ->capture_default_str();
  app.add("--seeds", given.seeds, "Number of seeds, from --seed on; the table shows mean and spread", "N", group)
      ->check(number(1, 1000, "from 1 to 1000"));
  app.add_flag("--quick", given.quick, "Two epochs on 256 images, to see it work")->group(group);
}

void add_optimizer_options(CommandLine& app, Given& given, Arguments& arguments) {
  const char* group = "Optimizer";
  RunSettings& run = arguments.settings;
  CLI::Option* one = app.add("--optimizer", given.optimizer, "The one to train with (default: sgd)", "NAME", group);
  app.add("--compare", given.compare,
          "Several, each from the same weights and data order (default list: sgd,sam,zsharp,gcsam)", "NAME,NAME...",
          group)
      ->delimiter(',')
      ->expected(0, -1)
      ->excludes(one);
  app.add("--lr", given.learning_rates, "Learning rate, for all or as NAME=X (default: by base, sgd 0.1, adam 0.001)",
          "X", group);
  app.add("--momentum", run.momentum, "Momentum of sgd and rmsprop", "X", group)->check(share())->capture_default_str();
  app.add("--weight-decay", arguments.weight_decay, "Default: 0.0005, adamw 0.01; lbfgs has none", "X", group)
      ->check(not_negative());
  app.add("--rho", given.rhos, "Radius of the perturbation, for all or as NAME=X (default: by method and data)", "X",
          group);
  app.add("--alpha", run.alpha, "Strength of das", "X", group)->check(not_negative())->capture_default_str();
  app.add("--interval", run.interval, "Perturbs every K-th step (0: the method's own, looksam 5, every 10)", "K", group)
      ->check(number(0.0, 1e9, "a whole number from 0 on"))
      ->capture_default_str();
  app.add("--tail-share", run.tail_share, "Share of the steps, the last ones, that tail perturbs", "F", group)
      ->check(number(0.0, 1.0, "from 0 to 1"))
      ->capture_default_str();
  app.add("--percentile", run.percentile, "Quantile above which zsharp keeps components", "Q", group)
      ->check(share())
      ->capture_default_str();
}

void add_running_options(CommandLine& app, Given& given, Arguments& arguments) {
  const char* group = "Running and results";
  app.add("--device", arguments.device, "cpu or cuda", "DEVICE", group)
      ->check(one_of({"cpu", "cuda"}))
      ->capture_default_str();
  app.add("--threads", arguments.threads, "CPU threads (default: LibTorch's choice)", "N", group)
      ->check(number(1, 1024, "from 1 to 1024"));
  app.add("--out", given.out, "Folder of index.html, curves.svg and curves.csv", "DIR", group)->capture_default_str();
  app.add("--evaluate-every", given.evaluate_every, "Epochs between tests (default: sample 2, else 1)", "N", group)
      ->check(count());
  app.add("--sharpness-rho", arguments.settings.sharpness_rho, "Radius at which the sharpness in the table is measured",
          "X", group)
      ->check(not_negative())
      ->capture_default_str();
  CLI::Option* checkpoint = app.add(
      "--checkpoint", given.checkpoint,
      "File (with --compare folder) written after every epoch and on Ctrl-C (default: in --out)", "PATH", group);
  app.add("--resume", given.resume, "Continue bit for bit from such a checkpoint, with the same options", "PATH", group)
      ->excludes(checkpoint);
}

/// "0.1" for all, "sam=0.1" for one of `optimizers`.
std::map<std::string, double> numbers_by_optimizer(const std::string& option, const std::vector<std::string>& texts,
                                                   const std::vector<std::string>& optimizers, double lowest) {
  std::map<std::string, double> numbers;
  for (const std::string& text : texts) {
    const size_t equals = text.rfind('=');
    const std::string name = equals == std::string::npos ? "" : text.substr(0, equals);
    const std::string digits = equals == std::string::npos ? text : text.substr(equals + 1);
    char* end = nullptr;
    const double value = std::strtod(digits.c_str(), &end);
    if (digits.empty() || *end != '\0' || !std::isfinite(value) || value < lowest)
      throw CLI::ValidationError(option,
                                 "'" + digits + "' must be a number of at least " + CLI::detail::to_string(lowest));
    if (!name.empty() && std::find(optimizers.begin(), optimizers.end(), name) == optimizers.end())
      throw CLI::ValidationError(option, "'" + name + "' in '" + text + "' is not among the optimizers of this run");
    numbers[name] = value;
  }
  return numbers;
}

std::vector<std::string> chosen_optimizers(const Given& given, bool compare, const std::string& tensorize) {
  std::vector<std::string> names = {given.optimizer.empty() ? "sgd" : given.optimizer};
  if (compare) names = given.compare;
  if (names == std::vector<std::string>{""}) names = {"sgd", "sam", "zsharp", "gcsam"};
  for (size_t i = 0; i < names.size(); ++i) {
    if (OptimizerName::parse(names[i]).method == "das" && tensorize == "none")
      throw CLI::ValidationError("--tensorize", "das scales the cores of tensorized layers: choose a format");
    if (std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]) !=
        names.begin() + static_cast<std::ptrdiff_t>(i))
      throw std::runtime_error("--compare: '" + names[i] + "' is listed twice");
  }
  return names;
}

void resolve_training(const Given& given, Arguments& arguments) {
  const RunSettings fitting = fitting_settings(arguments.sample);
  RunSettings& run = arguments.settings;
  run.model = given.model.value_or(fitting.model);
  run.train_size = given.train_size.value_or(given.quick ? kQuickImages : 0);
  run.test_size = given.test_size.value_or(given.quick ? kQuickImages : 0);
  run.label_noise = given.label_noise.value_or(fitting.label_noise);
  run.augment = given.augment || (fitting.augment && !given.no_augment);
  run.epochs = given.epochs.value_or(given.quick ? kQuickEpochs : fitting.epochs);
  run.batch_size = given.batch_size.value_or(fitting.batch_size);
  run.warm_up = given.warm_up.value_or(given.quick ? 0.0 : fitting.warm_up);
  run.evaluate_every = given.evaluate_every.value_or(given.quick ? 1 : fitting.evaluate_every);
}

void check_warm_up(const Arguments& arguments) {
  for (const std::string& optimizer : arguments.optimizers) {
    const RunSettings run = arguments.run(optimizer, 0);
    if (run.warm_up > static_cast<double>(run.epochs))
      throw CLI::ValidationError("--warm-up", "is longer than the training of " + std::to_string(run.epochs) +
                                                  " epochs that " + optimizer + " has");
  }
}

void check_plain_loop(const Arguments& arguments) {
  if (!arguments.settings.plain_loop) return;
  for (const std::string& optimizer : arguments.optimizers) {
    const OptimizerName name = OptimizerName::parse(optimizer);
    const char* reason = nullptr;
    if (name.base == "lbfgs") reason = "evaluates the loss several times a step";
    if (name.perturbs_before_its_pass()) reason = "moves the weights before its only pass";
    if (reason != nullptr)
      throw CLI::ValidationError("--plain-loop",
                                 "'" + optimizer + "' " + reason + " and needs a closure: leave out one of them");
  }
}

void resolve_checkpoint(const Given& given, Arguments& arguments) {
  arguments.out = given.out;
  arguments.resume = !given.resume.empty();
  const bool asked_for = arguments.resume || !given.checkpoint.empty();
  for (const std::string& optimizer : arguments.optimizers)
    if (asked_for && OptimizerName::parse(optimizer).base == "lbfgs")
      throw std::runtime_error(
          "LibTorch cannot save its lbfgs optimizer at every time: leave out --checkpoint and --resume");
  arguments.checkpoint = arguments.out / (arguments.compare ? "checkpoints" : "checkpoint.pt");
  if (!given.checkpoint.empty()) arguments.checkpoint = given.checkpoint;
  if (arguments.resume) arguments.checkpoint = given.resume;
  if (arguments.resume && !std::filesystem::exists(arguments.checkpoint))
    throw std::runtime_error("--resume " + given.resume + ": there is no such " +
                             (arguments.compare ? "folder" : "file"));
}

void resolve(const Given& given, bool compare, Arguments& arguments) {
  arguments.sample = given.data.empty();
  if (!arguments.sample) arguments.data = given.data;
  arguments.compare = compare;
  arguments.optimizers = chosen_optimizers(given, compare, arguments.settings.tensorize);
  arguments.learning_rates = numbers_by_optimizer("--lr", given.learning_rates, arguments.optimizers, 0.0);
  arguments.rhos = numbers_by_optimizer("--rho", given.rhos, arguments.optimizers, 0.0);
  for (int i = 0; i < given.seeds; ++i) arguments.seeds.push_back(given.seed + static_cast<uint64_t>(i));
  if (!compare && given.seeds > 1) throw CLI::ValidationError("--seeds", "goes with --compare");
  resolve_training(given, arguments);
  check_warm_up(arguments);
  check_plain_loop(arguments);
  resolve_checkpoint(given, arguments);
}

double default_learning_rate(const std::string& base) {
  if (base == "sgd" || base == "lbfgs") return 0.1;
  return base == "adagrad" ? 0.01 : 0.001;
}

/// The sample's wrong labels call for larger ones than usual.
double default_rho(const std::string& method, bool sample) {
  if (method == "asam") return 0.5;
  // From a pilot on the sample: the fewer gradients a method takes, the larger its best radius.
  const double of_sam = sample ? 0.2 : 0.1;
  if (method == "msam") return 7.5 * of_sam;
  if (method == "every") return 4.0 * of_sam;
  if (method == "s2sam") return 1.5 * of_sam;
  return sample && (method == "zsharp" || method == "gczsharp") ? 0.35 : of_sam;
}

/// Whole epochs of `gradients` evaluations per step that fit into `epochs` of one; at least one.
int64_t epochs_within(int64_t epochs, double gradients) {
  // 33 / 1.1 is a little under 30 in floating point.
  const double whole = std::floor(static_cast<double>(epochs) / gradients + 1e-9);
  return std::max<int64_t>(1, static_cast<int64_t>(whole));
}

}  // namespace

RunSettings fitting_settings(bool sample) {
  const Fitting& fitting = sample ? kSample : kFull;
  RunSettings run;
  run.model = fitting.model;
  run.epochs = fitting.epochs;
  run.batch_size = fitting.batch_size;
  run.evaluate_every = fitting.evaluate_every;
  run.label_noise = fitting.label_noise;
  run.warm_up = fitting.warm_up;
  run.augment = fitting.augment;
  return run;
}

RunSettings Arguments::run(const std::string& optimizer, uint64_t seed) const {
  const auto of = [&](const std::map<std::string, double>& numbers, double otherwise) {
    for (const std::string& name : {optimizer, std::string()})
      if (const auto found = numbers.find(name); found != numbers.end()) return found->second;
    return otherwise;
  };
  const OptimizerName name = OptimizerName::parse(optimizer);
  RunSettings run = settings;
  run.optimizer = optimizer;
  run.seed = seed;
  run.learning_rate = of(learning_rates, default_learning_rate(name.base));
  run.rho = of(rhos, default_rho(name.method, sample));
  run.weight_decay = weight_decay.value_or(name.base == "adamw" ? 0.01 : 5e-4);
  if (budget == "gradients") run.epochs = epochs_within(settings.epochs, run.planned_gradients());
  return run;
}

std::filesystem::path Arguments::checkpoint_of(const RunSettings& run) const {
  if (OptimizerName::parse(run.optimizer).base == "lbfgs") return {};
  return compare ? checkpoint / (run.optimizer + "-seed" + std::to_string(run.seed) + ".pt") : checkpoint;
}

std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments) {
  CommandLine app("steppe-cifar", kDescription, kFooter);
  Given given;
  add_data_options(app, given);
  add_training_options(app, given, arguments);
  add_optimizer_options(app, given, arguments);
  add_running_options(app, given, arguments);
  return app.read(argc, argv, [&] { resolve(given, app.count("--compare") > 0, arguments); });
}

}  // namespace cifar
