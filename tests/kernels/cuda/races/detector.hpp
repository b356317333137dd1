// Finds data races in kernels that are compiled as for ThreadSanitizer, but call our hooks (hooks.cpp).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>

namespace steppe::races {

struct Launch {
  std::string kernel;
  int blocks = 0, threads = 0;
  uint64_t seed = 0;  ///< of the schedule
};

/// Runs body(block, thread) in every thread of the launch. Throws where some wait for others that never come.
void run(const Launch& launch, const std::function<void(int, int)>& body);

// What the thread that runs asks for; `add` returns the old value.
void wait_for_block();
void wait_for_warp();
double exchange_in_warp(double given, int from);
void fence();
unsigned add(unsigned* to, unsigned value);
unsigned long long add(unsigned long long* to, unsigned long long value);

enum class Kind { Read, Write, Atomic };
/// Called before every access by the instrumented code; `place` is where it goes on.
void access(const void* memory, size_t bytes, Kind kind, const void* place);

/// What was looked at since the program began.
struct Totals {
  uint64_t launches = 0, accesses = 0, switches = 0, races = 0;
};
Totals totals();
/// The kernels that were run, by name.
const std::set<std::string>& kernels();

/// The races that are not forgotten, in words.
std::string report();
void forget_races();

}  // namespace steppe::races
