// How often an ascent and its restore allocate memory once they have run for a while.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "counted_allocations.hpp"
#include "engine.hpp"
#include "machine.hpp"
#include "method.hpp"
#include "parameter_list.hpp"
#include "problem.hpp"

namespace {

using namespace benchmarks;

constexpr int kFirst = 10, kLast = 20;

Allocations in_one_step(Problem& problem, Engine& engine) {
  problem.reset_gradients(false);
  const CountedAllocations counted;
  engine.ascend();
  engine.restore();
  return counted.so_far();
}

/// The maximum over the steps from kFirst to kLast.
Allocations in_steady_state(Problem& problem, Method method) {
  Engine engine(problem, method, /*fused=*/true);
  Allocations most;
  for (int step = 1; step <= kLast; ++step) {
    const Allocations now = in_one_step(problem, engine);
    if (step < kFirst) continue;
    most = {std::max(most.calls, now.calls), std::max(most.bytes, now.bytes), std::max(most.peak, now.peak)};
  }
  return most;
}

/// The counter must see a tensor's memory, or the figures mean nothing.
void check_counter() {
  constexpr int64_t kBytes = 1 << 20;
  const CountedAllocations counted;
  const at::Tensor tensor = at::empty({kBytes}, at::TensorOptions().dtype(at::kByte));
  if (counted.so_far().bytes < kBytes) throw std::runtime_error("LibTorch's allocations do not pass the counter");
}

void run() {
  check_counter();
  Problem problem(resnet18(), 1);
  std::printf("\nAn ascent and its restore over the parameters of ResNet-18: maximum of the steps %d to %d\n", kFirst,
              kLast);
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    for (const Method method : {Method::Sam, Method::Gcsam, Method::Asam, Method::ZSharp}) {
      const Allocations found = in_steady_state(problem, method);
      std::printf("allocations %s@%d %" PRId64 " calls %" PRId64 " bytes\n", name_of(method).c_str(), threads,
                  found.calls, found.bytes);
    }
  }
}

}  // namespace

int main() {
  try {
    const c10::NoGradGuard no_grad;
    std::printf("%s", description_of_machine().c_str());
    run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "steppe-benchmark-allocations: %s\n", error.what());
    return 1;
  }
  return 0;
}
