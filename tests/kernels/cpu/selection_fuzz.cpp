// The filter's selection under libFuzzer; needs clang and nothing else:
//
//     flags="-std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude"
//     clang++ $flags tests/kernels/cpu/selection_fuzz.cpp -o fuzz && ./fuzz -max_total_time=60
//
// SPDX-License-Identifier: MIT
#include <cstdio>
#include <cstdlib>

#include "selection_check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace steppe::kernels::cpu;
  static const std::vector<InstructionSet> sets = available_instruction_sets();
  const InstructionSet set = sets[size > 0 ? data[size - 1] % sets.size() : 0];
  const std::string wrong = check_selection(FilteredLayer(data, size), set);
  if (wrong.empty()) return 0;
  std::fprintf(stderr, "%s: %s\n", name_of(set), wrong.c_str());
  std::abort();
}
