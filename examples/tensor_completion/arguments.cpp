// SPDX-License-Identifier: MIT
#include "arguments.hpp"

#include <algorithm>

#include "presentation/command_line.hpp"

namespace completion {
namespace {

using presentation::CommandLine;
using presentation::count;
using presentation::not_negative;
using presentation::number;
using presentation::one_of;
using presentation::share;

constexpr char kDescription[] =
    "Completes a tensor from a part of its entries, in Tucker form, with Adam, SAM, DAS and HOOI, and shows how\n"
    "well it fits the entries that it saw and those that it did not. Without --data it uses COVID-19 serology that\n"
    "comes with the program, in the setting of arXiv 2508.10435.\n";
constexpr char kFooter[] =
    "\nExamples:\n"
    "  steppe-tensor-completion --quick\n"
    "  steppe-tensor-completion --out covid19\n"
    "  steppe-tensor-completion --data mine.npy --rank 4,4,3 --masked 0.5 --iterations 10000\n";
constexpr int64_t kQuickIterations = 3000, kQuickSweeps = 100, kQuickAttemptIterations = 1000;

/// What --quick changes, unless it was given.
struct Given {
  std::optional<int64_t> iterations, splits, sweeps, attempt_iterations;
};

void add_setting_options(CommandLine& app, Arguments& arguments, Given& given) {
  const char* group = "Setting";
  app.add("--data", arguments.data, "Another tensor: a .npy file, float64, C order, two modes or more", "FILE", group);
  app.add("--rank", arguments.training.ranks, "Tucker rank, one for each mode (default: 8, or the mode's size if less)",
          "R,R...", group)
      ->delimiter(',')
      ->check(count());
  app.add("--masked", arguments.masked, "Share of the entries that are held out", "SHARE", group)
      ->check(share())
      ->capture_default_str();
  app.add("--splits", given.splits, "Draws of held-out entries and cores, seeds from --seed on (default: 3)", "N",
          group)
      ->check(number(1, 1000, "from 1 to 1000"));
  app.add("--optimizers", arguments.methods, "One or more of adam, sam, das, hooi", "NAME,NAME...", group)
      ->delimiter(',')
      ->check(one_of({"adam", "sam", "das", "hooi"}))
      ->capture_default_str();
}

void add_training_options(CommandLine& app, Arguments& arguments, Given& given) {
  const char* group = "Training";
  TrainingSettings& training = arguments.training;
  app.add("--iterations", given.iterations, "Steps of adam, sam, das (default: 50000)", "N", group)->check(count());
  app.add("--sweeps", given.sweeps, "Largest number of sweeps of hooi (default: 2000)", "N", group)->check(count());
  app.add("--lr", training.learning_rate, "Learning rate of Adam, for all but hooi", "X", group)
      ->check(not_negative())
      ->capture_default_str();
  app.add("--rho", training.rho, "Radius of sam", "X", group)->check(not_negative())->capture_default_str();
  app.add("--alpha", training.alpha, "Strength of das", "X", group)->check(not_negative())->capture_default_str();
  app.add("--initial-scale", training.initial_scale, "Standard deviation of the initial cores", "X", group)
      ->check(not_negative())
      ->capture_default_str();
  app.add("--held-out-iterations", given.attempt_iterations,
          "Steps of each attempt at the held-out entries; 0 leaves that part out (default: 10000)", "N", group)
      ->check(number(0, 1e9, "0 or more"));
}

void resolve(const Given& given, Arguments& arguments) {
  const bool quick = arguments.study.quick;
  arguments.training.iterations = given.iterations.value_or(quick ? kQuickIterations : arguments.training.iterations);
  arguments.splits = given.splits.value_or(quick ? 1 : arguments.splits);
  arguments.sweeps = given.sweeps.value_or(quick ? kQuickSweeps : arguments.sweeps);
  arguments.attempt_iterations =
      given.attempt_iterations.value_or(quick ? kQuickAttemptIterations : arguments.attempt_iterations);
  auto& methods = arguments.methods;
  for (auto it = methods.begin(); it != methods.end(); ++it)
    if (std::find(methods.begin(), it, *it) != it)
      throw CLI::ValidationError("--optimizers", "'" + *it + "' is listed twice");
}

}  // namespace

bool Arguments::as_published() const {
  const TrainingSettings other;
  return bundled() && masked == 0.7 && training.iterations == other.iterations &&
         training.learning_rate == other.learning_rate && training.rho == other.rho && training.alpha == other.alpha &&
         training.initial_scale == other.initial_scale && training.ranks == std::vector<int64_t>{8, 6, 8};
}

std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments) {
  arguments.study.out = "tensor-completion-results";
  arguments.study.threads = 1;
  Given given;
  CommandLine app("steppe-tensor-completion", kDescription, kFooter);
  add_setting_options(app, arguments, given);
  add_training_options(app, arguments, given);
  presentation::add_study_options(app, arguments.study, "One split and few iterations, to see it work");
  app.get_option("--threads")->description("CPU threads; tensors this small gain nothing from more than 1");
  app.get_option("--threads")->capture_default_str();
  return app.read(argc, argv, [&] { resolve(given, arguments); });
}

}  // namespace completion
