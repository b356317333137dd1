// SPDX-License-Identifier: MIT
#include "arguments.hpp"

#include <algorithm>

#include "presentation/command_line.hpp"

namespace statistics {
namespace {

using presentation::CommandLine;
using presentation::number;

constexpr char kDescription[] =
    "Sharpness-aware minimization against gradient descent in terms of statistics: bias, variance and risk at every\n"
    "iteration, in kernel regression (exactly) and of a network with one hidden layer on images (by experiment).\n";
constexpr char kFooter[] =
    "\nExamples:\n"
    "  steppe-statistics --quick\n"
    "  steppe-statistics --only kernel --rho 4 --sigmas 0,0.5,1\n"
    "  steppe-statistics --only network --classes 0,1 --data cifar-10-batches-bin\n";

/// What --quick sets, unless the user does.
void be_quick(const CommandLine& app, Arguments& arguments) {
  const auto set = [&](const char* option, int64_t& value, int64_t quick) {
    if (app.count(option) == 0) value = quick;
  };
  set("--iterations", arguments.kernel.iterations, 2000);
  set("--draws", arguments.kernel.draws, 60);
  set("--designs", arguments.kernel.designs, 5);
  set("--steps", arguments.network.iterations, 200);
  set("--seeds", arguments.network.seeds, 3);
  set("--label-draws", arguments.network.draws, 2);
  if (app.count("--label-noise") == 0) arguments.network.noise = {0.0, 0.2};
}

void add_kernel_options(CommandLine& app, KernelSettings& kernel) {
  const char* group = "Kernel regression";
  app.add("--n", kernel.n, "Points, uniform on (-1, 1)", "N", group)->check(number(2, 2000, "from 2 to 2000"));
  app.add("--bandwidth", kernel.bandwidth, "The b of the kernel exp(-b |x - x'|^2)", "B", group)
      ->check(number(1e-6, 1e9, "over 0"));
  app.add("--rho", kernel.rho, "SAM's rho as a multiple of 1/d_1", "X", group)->check(number(1e-9, 1e6, "over 0"));
  app.add("--eta", kernel.eta, "Step size as a share of 1/(d_1 (1 + rho d_1)); the theory's condition is 1 or less",
          "X", group)
      ->check(number(1e-9, 2.0 - 1e-9, "over 0 and under 2, where SAM diverges"));
  app.add("--iterations", kernel.iterations, "Steps of each method", "N", group)
      ->check(number(1, 1e6, "from 1 to 1000000"));
  app.add("--draws", kernel.draws, "Draws of the noise, in the simulation", "N", group)
      ->check(number(3, 1e5, "from 3 to 100000"));
  app.add("--designs", kernel.designs, "Sets of points over which the table shows mean and spread", "N", group)
      ->check(number(1, 1000, "from 1 to 1000"));
  app.add("--sigmas", kernel.sigmas, "Standard deviations of the noise", "S,S...", group)
      ->delimiter(',')
      ->check(number(0.0, 1e6, "0 or more"));
}

void add_network_options(CommandLine& app, NetworkStudySettings& network) {
  const char* group = "Network";
  app.add("--data", network.data, "Folder of CIFAR-10 or CIFAR-100, binary version (default: the bundled images)",
          "DIR", group);
  app.add("--classes", network.classes, "Two labels of the data", "A,B", group)->delimiter(',')->expected(2);
  app.add("--label-noise", network.noise, "Shares of training labels that are flipped", "X,X...", group)
      ->delimiter(',')
      ->check(number(0.0, 0.5, "from 0 to 0.5"));
  app.add("--hidden", network.hidden, "Units of the hidden layer", "N", group)
      ->check(number(1, 1e5, "from 1 to 100000"));
  app.add("--lr", network.learning_rate, "Learning rate of every method", "X", group)
      ->check(number(1e-9, 1e3, "over 0"));
  app.add("--sam-rho", network.rho, "Radius of SAM", "X", group)->check(number(1e-9, 1e3, "over 0"));
  app.add("--gradient-rho", network.gradient_rho, "rho of un-normalised SAM, whose radius is rho |g|", "X", group)
      ->check(number(1e-9, 1e6, "over 0"));
  app.add("--steps", network.iterations, "Steps of each method", "N", group)
      ->check(number(1, 1e6, "from 1 to 1000000"));
  app.add("--seeds", network.seeds, "Sets of initial weights", "N", group)->check(number(1, 1000, "from 1 to 1000"));
  app.add("--label-draws", network.draws, "Draws of the label noise per seed", "N", group)
      ->check(number(2, 1000, "from 2 to 1000"));
}

}  // namespace

std::optional<int> parse_arguments(int argc, const char* const* argv, Arguments& arguments) {
  CommandLine app("steppe-statistics", kDescription, kFooter);
  app.option_defaults()->always_capture_default();
  arguments.study.out = "statistics-results";
  app.add("--only", arguments.only, "One of the two parts: kernel or network", "PART", "What is run")
      ->check(presentation::one_of({"kernel", "network"}));
  add_kernel_options(app, arguments.kernel);
  add_network_options(app, arguments.network);
  add_study_options(app, arguments.study, "Fewer steps, draws and seeds: to see it work");
  return app.read(argc, argv, [&] {
    if (arguments.study.quick) be_quick(app, arguments);
  });
}

}  // namespace statistics
