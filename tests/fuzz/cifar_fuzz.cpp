// Damaged files of CIFAR images under libFuzzer; needs clang, and LibTorch's folder in $torch:
//
//     flags="-std=c++20 -O1 -g -fsanitize=fuzzer,address -Iexamples/cifar -Itests -isystem $torch/include"
//     flags="$flags -isystem $torch/include/torch/csrc/api/include -L$torch/lib -ltorch_cpu -lc10 -Wl,-rpath,$torch/lib"
//     clang++ tests/fuzz/cifar_fuzz.cpp examples/cifar/dataset.cpp $flags -o fuzz && ./fuzz -max_len=7000 -max_total_time=60
//
// SPDX-License-Identifier: MIT
#include <cstdint>
#include <filesystem>
#include <fstream>

#include "dataset.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::filesystem::path folder = std::filesystem::temp_directory_path() / "steppe-fuzz" / "cifar-100-binary";
  std::filesystem::create_directories(folder);
  const size_t train = size > 0 ? size * data[0] / 256 : 0;
  const auto write = [](const std::filesystem::path& file, const uint8_t* bytes, size_t count) {
    std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(bytes), static_cast<std::streamsize>(count));
  };
  write(folder / "train.bin", data, train);
  write(folder / "test.bin", data + train, size - train);
  try {
    cifar::load_dataset(folder);
  } catch (const std::exception&) {
  }
  return 0;
}
