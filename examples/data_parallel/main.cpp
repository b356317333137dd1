// steppe-data-parallel: CIFAR training in several processes, compared with one process with as many micro-batches.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <steppe/distributed/c10d.hpp>
#include <steppe/distributed/gloo.hpp>

#include "dataset.hpp"
#include "presentation/clock.hpp"
#include "presentation/command_line.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/program.hpp"
#include "presentation/progress.hpp"
#include "presentation/table.hpp"
#include "trainer.hpp"

namespace {

using data_parallel::Settings;
using data_parallel::Trainer;

struct Arguments {
  Settings settings;
  std::filesystem::path data, checkpoint;
  int64_t train_size = 0, test_size = 0, stop_after = 0;
  double time_limit = 60.0;
  bool compare = false;
};

std::optional<int> parse(int argc, char** argv, Arguments& arguments) {
  Settings& run = arguments.settings;
  presentation::CommandLine app(
      "steppe-data-parallel",
      "Trains on CIFAR images in as many processes as the environment sets (RANK, WORLD_SIZE, MASTER_ADDR, "
      "MASTER_PORT; "
      "torchrun, Slurm and mpirun set them). Every process sees its share of each batch.",
      "torchrun --no-python --standalone --nproc-per-node=2 steppe-data-parallel --method zsharp");
  app.add("--method", run.method, "the optimizer, over SGD", "NAME", "Training")
      ->check(presentation::one_of(data_parallel::method_names()));
  app.add("--perturb", run.perturb, "each process along its own gradient, or all along the mean", "WHICH", "Training")
      ->check(presentation::one_of({"each", "together"}));
  app.add("--epochs", run.epochs, "epochs", "N", "Training")->check(presentation::count());
  app.add("--batch", run.batch, "images in a step, over all processes", "N", "Training")->check(presentation::count());
  app.add("--parts", run.parts, "micro-batches of each process", "N", "Training")->check(presentation::count());
  app.add("--lr", run.learning_rate, "learning rate", "X", "Training");
  app.add("--rho", run.rho, "radius", "X", "Training");
  app.add("--seed", run.seed, "of weights, order and augmentation", "N", "Training");
  app.add("--data", arguments.data, "folder of CIFAR-10 or CIFAR-100; the bundled images without it", "PATH", "Data");
  app.add("--train-size", arguments.train_size, "training images; 0: all", "N", "Data")
      ->check(presentation::not_negative());
  app.add("--test-size", arguments.test_size, "test images; 0: all", "N", "Data")->check(presentation::not_negative());
  app.add("--checkpoint", arguments.checkpoint, "written after each epoch, and read if it is there", "PATH", "Run");
  app.add("--stop-after", arguments.stop_after, "stops after this step, with a checkpoint; 0: at the end", "N", "Run")
      ->check(presentation::not_negative());
  app.add("--time-limit", arguments.time_limit, "seconds that a process waits for the others", "X", "Run");
  app.add_flag("--compare", arguments.compare, "trains once more in one process, with one part for each, and compares")
      ->group("Run");
  return app.read(argc, argv);
}

/// Trains, with progress on process 0. Returns whether the end was reached.
bool train(Trainer& trainer, const Arguments& arguments, int rank, const std::string& label) {
  presentation::Progress progress(stdout, 1.0);
  double shown = 0.0;
  const int64_t epochs = arguments.settings.epochs;
  const bool ended = trainer.train([&](const data_parallel::Progress& now) {
    if (rank == 0) {
      const double share = static_cast<double>(now.step) / static_cast<double>(now.steps);
      char loss[32];
      std::snprintf(loss, sizeof loss, "loss %.4f", now.loss);
      progress.advance(share - shown, label, loss);
      shown = share;
      const bool epoch_ends = now.step * epochs / now.steps > (now.step - 1) * epochs / now.steps;
      if (!arguments.checkpoint.empty() && (epoch_ends || now.step == arguments.stop_after))
        trainer.save(arguments.checkpoint);
    }
    return now.step != arguments.stop_after;
  });
  progress.clear();
  return ended;
}

int run(int argc, char** argv) {
  Arguments arguments;
  if (const auto code = parse(argc, argv, arguments)) return *code;
  at::set_num_threads(1);  // processes replace threads, and sums are the same on every machine
  const auto world =
      steppe::distributed::world(std::chrono::milliseconds(static_cast<int64_t>(arguments.time_limit * 1000)));
  const cifar::Dataset data =
      cifar::cut(cifar::load_dataset(arguments.data), arguments.train_size, arguments.test_size, at::kCPU);
  Trainer trainer(data, arguments.settings, world.rank, world.size);
  if (!arguments.checkpoint.empty() && std::filesystem::exists(arguments.checkpoint)) {
    trainer.load(arguments.checkpoint);
    if (world.rank == 0) std::printf("Resuming after step %lld.\n", static_cast<long long>(trainer.steps_made()));
  }
  const auto group = steppe::distributed::gloo(world);
  steppe::distributed::broadcast_from_first(*trainer.model(), group, world.timeout);
  if (world.size > 1) trainer.exchange(steppe::distributed::mean_over(world, group, trainer.model()->parameters()));

  const double start = presentation::seconds_now();
  const bool ended = train(trainer, arguments, world.rank, std::to_string(world.size) + " processes");
  const double seconds = presentation::seconds_now() - start;
  if (world.rank != 0) return 0;
  const auto& run = arguments.settings;
  std::printf("%s, %s, batch %lld, %d processes with %lld parts each: %lld steps in %s\n", run.method.c_str(),
              run.perturb.c_str(), static_cast<long long>(run.batch), world.size, static_cast<long long>(run.parts),
              static_cast<long long>(trainer.steps_made()), presentation::duration(seconds).c_str());
  double weights = 0.0;
  for (const at::Tensor& param : trainer.model()->parameters()) weights += param.abs().sum().item<double>();
  std::printf("test accuracy %.4f, sum of |w| %.5g\n", trainer.test_accuracy(), weights);
  if (!ended || !arguments.compare) return 0;

  Arguments alone = arguments;
  alone.settings.parts *= world.size;
  alone.checkpoint.clear();
  Trainer one(data, alone.settings, 0, 1);
  const double again = presentation::seconds_now();
  train(one, alone, 0, "1 process");
  const double seconds_alone = presentation::seconds_now() - again;
  const double apart = data_parallel::difference(*trainer.model(), *one.model());
  std::printf("\n%s",
              presentation::text_of(
                  {{{"", "steps", "seconds", "test accuracy"},
                    {std::to_string(world.size) + " processes, " + std::to_string(run.parts) + " part(s) each",
                     std::to_string(trainer.steps_made()), presentation::cell(seconds),
                     presentation::cell(trainer.test_accuracy())},
                    {"1 process, " + std::to_string(alone.settings.parts) + " parts", std::to_string(one.steps_made()),
                     presentation::cell(seconds_alone), presentation::cell(one.test_accuracy())}}})
                  .c_str());
  std::printf("Largest difference of a weight: %g\n", apart);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return presentation::carried_out("steppe-data-parallel", [&] { return run(argc, argv); });
}
