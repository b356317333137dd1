// Damaged checkpoints under libFuzzer; needs clang, and LibTorch's folder in $torch:
//
//     flags="-std=c++20 -O1 -g -fsanitize=fuzzer,address -Iinclude -Itests -isystem $torch/include"
//     flags="$flags -isystem $torch/include/torch/csrc/api/include -L$torch/lib -ltorch_cpu -lc10 -Wl,-rpath,$torch/lib"
//     clang++ tests/fuzz/checkpoint_fuzz.cpp $flags -o fuzz && ./fuzz -max_total_time=60
//
// SPDX-License-Identifier: MIT
#include <cstdio>
#include <cstdlib>

#include "checkpoint_check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string wrong = fuzz::check_checkpoint(data, size);
  if (wrong.empty()) return 0;
  std::fprintf(stderr, "%s\n", wrong.c_str());
  std::abort();
}
