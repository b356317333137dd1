// Damaged .npy files under libFuzzer; needs clang, and LibTorch's folder in $torch:
//
//     flags="-std=c++20 -O1 -g -fsanitize=fuzzer,address -Iexamples/tensor_completion -Itests -isystem $torch/include"
//     flags="$flags -isystem $torch/include/torch/csrc/api/include -L$torch/lib -ltorch_cpu -lc10 -Wl,-rpath,$torch/lib"
//     clang++ tests/fuzz/npy_fuzz.cpp examples/tensor_completion/npy.cpp $flags -o fuzz && ./fuzz -max_total_time=60
//
// SPDX-License-Identifier: MIT
#include "npy.hpp"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::filesystem::path file = std::filesystem::temp_directory_path() / "steppe-fuzz.npy";
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  try {
    completion::read_npy(file);
  } catch (const std::exception&) {
  }
  return 0;
}
