// steppe-statistics: bias, variance and risk of SAM against gradient descent.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>

#include <cstdio>
#include <optional>
#include <string>

#include "arguments.hpp"
#include "cifar/dataset.hpp"
#include "kernel_report.hpp"
#include "network_report.hpp"
#include "presentation/files.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/program.hpp"
#include "presentation/table.hpp"

namespace {

bool run_kernel(const statistics::Arguments& arguments, presentation::Page& page) {
  const statistics::KernelStudy study = statistics::carry_out(arguments.kernel, arguments.study.seed);
  std::printf("%s\n%s\n%s\n%s\n", statistics::conditions(study).c_str(),
              presentation::text_of(statistics::table(study)).c_str(), statistics::conclusions(study).c_str(),
              statistics::agreement(study).c_str());
  statistics::add_to(page, study);
  return study.finished;
}

bool run_network(const statistics::Arguments& arguments, const cifar::Dataset& data, presentation::Page& page) {
  const statistics::NetworkStudy study = statistics::carry_out(arguments.network, data, arguments.study.seed);
  std::printf("%s\n%s\n%s\n%s\n", statistics::conditions(study).c_str(),
              presentation::text_of(statistics::error_table(study)).c_str(),
              presentation::text_of(statistics::bias_table(study)).c_str(), statistics::conclusions(study).c_str());
  statistics::add_to(page, study);
  return study.finished;
}

int run(int argc, char** argv) {
  statistics::Arguments arguments;
  if (const auto code = statistics::parse_arguments(argc, argv, arguments)) return *code;
  if (arguments.study.threads > 0) at::set_num_threads(arguments.study.threads);
  presentation::make_writable(arguments.study.out, "--out");
  std::optional<cifar::Dataset> data;
  if (arguments.only != "kernel") {
    data = cifar::load_dataset(arguments.network.data);
    // Errors come before anything long begins.
    statistics::two_classes(*data, arguments.network.classes[0], arguments.network.classes[1]);
  }
  presentation::catch_interrupts();
  presentation::Page page(arguments.study.out, "SAM against gradient descent: bias, variance, risk");
  bool finished = true;
  if (arguments.only != "network") finished = run_kernel(arguments, page);
  if (finished && data) finished = run_network(arguments, *data, page);
  std::printf("Results: %s\n", page.file().c_str());
  if (!finished) std::printf("Interrupted: these are the results so far.\n");
  return finished ? 0 : presentation::kInterrupted;
}

}  // namespace

int main(int argc, char** argv) {
  return presentation::carried_out("steppe-statistics", [&] { return run(argc, argv); });
}
