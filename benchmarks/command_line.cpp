// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include <ATen/Parallel.h>

#include <iostream>
#include <string>

#include "machine.hpp"

namespace benchmarks {

void add_options(CLI::App& app, Settings& settings) {
  app.set_help_flag("-h,--help", "Print this help");
  app.add_flag("--quick", settings.quick, "At most 60 seconds: shows that all works; its figures are rough");
  app.add_option("--threads", settings.threads, "Threads (default: as many as LibTorch takes)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  app.add_option("--rounds", settings.rounds, "Rounds (default: 21)")->type_name("N")->check(CLI::Range(1, 100000));
  app.footer("The environment variable STEPPE_CPU chooses the instruction set: avx512, avx2, sse2, neon or portable.");
}

bool prepare(const Settings& settings) {
  if (const std::string reason = why_not_to_measure(); !reason.empty()) {
    std::cerr << reason << "\n";
    return false;
  }
  if (settings.threads > 0) at::set_num_threads(settings.threads);
  std::cout << description_of_machine();
  return true;
}

}  // namespace benchmarks
