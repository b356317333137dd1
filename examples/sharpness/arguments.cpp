// SPDX-License-Identifier: MIT
#include "sharpness/arguments.hpp"

#include <cstdint>

#include "presentation/command_line.hpp"

namespace flatness {
namespace {

using presentation::CommandLine;
using presentation::count;
using presentation::not_negative;
using presentation::number;

constexpr char kDescription[] =
    "Measures how flat the loss is around the weights of checkpoints that steppe-cifar wrote: eigenvalues and trace "
    "of\n"
    "the Hessian, the rise of the loss within a ball, slices of the landscape. Model, data sizes and labels are read\n"
    "from the checkpoints. Writes one page with tables and pictures.\n";
constexpr char kFooter[] =
    "\nExamples:\n"
    "  steppe-cifar --compare sgd,sam --seeds 3 && steppe-sharpness cifar-results/checkpoints\n"
    "  steppe-sharpness --data cifar-10-batches-bin --images 1024 sgd.pt sam.pt\n"
    "  steppe-sharpness --quick      (trains two small models first)\n";

void add_what(CommandLine& app, Arguments& arguments) {
  const char* group = "What is measured";
  Settings& settings = arguments.settings;
  app.add_option("checkpoints", arguments.checkpoints, "Checkpoints of steppe-cifar, or folders of them (*.pt)")
      ->type_name("CHECKPOINT...");
  app.add("--data", arguments.data, "Folder of the data they were trained on (default: the sample)", "DIR", group);
  app.add("--images", settings.images, "The first N training images, with the labels trained on", "N", group)
      ->check(count());
  app.add("--batch-size", settings.batch_size, "Images at a time; the worst case is taken for each batch", "N", group)
      ->check(count());
  app.add("--device", arguments.device, "cpu or cuda", "DEVICE", group)->check(presentation::one_of({"cpu", "cuda"}));
}

void add_how(CommandLine& app, Settings& settings) {
  const char* group = "How closely";
  const auto radius = [] { return number(1e-12, 1e6, "a number over 0"); };
  app.add("--k", settings.k, "Largest eigenvalues", "K", group)->check(number(1, 100, "from 1 to 100"));
  app.add("--vectors", settings.vectors, "Random vectors of the trace", "N", group)->check(number(2, 1e6, "2 or more"));
  app.add("--density-vectors", settings.density_vectors, "Random vectors of the spectral density", "N", group)
      ->check(count());
  app.add("--steps", settings.steps, "Lanczos steps for each of these", "N", group)->check(number(2, 1e4, "2 or more"));
  app.add("--rho", settings.rhos, "Radii of SAM sharpness", "X,X...", group)->delimiter(',')->check(radius());
  app.add("--average-rho", settings.average_rho, "Radius of the average case: noise N(0, X^2 |w|^2)", "X", group)
      ->check(radius());
  app.add("--worst-rho", settings.worst_rho, "Radius of the worst case: |e / |w|| <= X", "X", group)->check(radius());
  app.add("--draws", settings.draws, "Draws of the average case", "N", group)->check(number(2, 1e6, "2 or more"));
  app.add("--radius", settings.radius, "Radius of the landscape, in lengths of the weights", "X", group)
      ->check(radius());
  app.add("--points", settings.points, "Points of the landscape's plane along each of two directions", "N", group)
      ->check(number(2, 1001, "from 2 to 1001"));
}

/// What --quick changes, unless the user sets it.
void make_quick(const CommandLine& app, Settings& settings) {
  const auto otherwise = [&](const char* option, auto& value, auto quick) {
    if (app.count(option) == 0) value = quick;
  };
  otherwise("--images", settings.images, int64_t{128});
  otherwise("--k", settings.k, int64_t{2});
  otherwise("--vectors", settings.vectors, int64_t{10});
  otherwise("--density-vectors", settings.density_vectors, int64_t{1});
  otherwise("--steps", settings.steps, int64_t{30});
  otherwise("--draws", settings.draws, int64_t{10});
  otherwise("--points", settings.points, int64_t{9});
}

void resolve(const CommandLine& app, Arguments& arguments) {
  arguments.settings.seed = arguments.study.seed;
  if (arguments.study.quick) make_quick(app, arguments.settings);
  if (arguments.checkpoints.empty() && !arguments.study.quick)
    throw CLI::ValidationError(
        "CHECKPOINT",
        "name a checkpoint or a folder of them, as steppe-cifar --compare writes into its --out; or see it "
        "work with --quick, which trains two small models first");
}

}  // namespace

std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments) {
  CommandLine app("steppe-sharpness", kDescription, kFooter);
  app.option_defaults()->always_capture_default();
  arguments.study.out = "sharpness-results";
  add_what(app, arguments);
  add_how(app, arguments.settings);
  presentation::add_study_options(app, arguments.study, "Few images and draws; without checkpoints trains two itself");
  return app.read(argc, argv, [&] { resolve(app, arguments); });
}

}  // namespace flatness
