// SPDX-License-Identifier: MIT
#include "machine.hpp"

#include <ATen/Parallel.h>
#include <torch/version.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include <steppe/kernels/cpu/instruction_sets.hpp>

namespace benchmarks {
namespace {

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line))
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  return "unknown processor";
}

std::string last_level_cache() {
  std::ifstream size("/sys/devices/system/cpu/cpu0/cache/index3/size");
  std::string text;
  return size >> text ? text : "unknown";
}

std::string load() {
#if defined(__unix__) || defined(__APPLE__)
  double averages[3];
  char text[80];
  if (getloadavg(averages, 3) == 3) {
    std::snprintf(text, sizeof(text), "%.2f %.2f %.2f (1, 5, 15 minutes)", averages[0], averages[1], averages[2]);
    return text;
  }
#endif
  return "unknown";
}

}  // namespace

std::string description_of_machine() {
  std::ostringstream out;
  out << "processor        " << processor() << ", " << std::thread::hardware_concurrency()
      << " cores, last-level cache " << last_level_cache() << "\n"
      << "load             " << load() << "\n"
      << "LibTorch         " << TORCH_VERSION << "\n"
      << "threads          " << at::get_num_threads() << "\n"
      << "instruction set  " << steppe::kernels::cpu::name_of(steppe::kernels::cpu::instruction_set()) << "\n"
      << "compiler         " << STEPPE_BENCHMARK_COMPILER << "\n"
      << "flags            " << STEPPE_BENCHMARK_FLAGS << "\n";
  return out.str();
}

std::string why_not_to_measure() {
  const std::string build = STEPPE_BENCHMARK_BUILD;
  if (build != "Release") return "this is a " + build + " build; figures need a Release build";
  return {};
}

}  // namespace benchmarks
