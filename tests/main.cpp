// Names the LibTorch that the tests run on, then runs them.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/version.hpp>
#include <torch/version.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

// Read by LeakSanitizer where the build has one: LibTorch does not free the reader of an archive that it refuses, nor
// Gloo the list of network interfaces when a name is unknown.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:mz_zip_reader_init\nleak:gloo::transport\n"; }

int main(int argc, char** argv) {
  std::printf("steppe %s on LibTorch %s, C++%ld\n", STEPPE_VERSION, TORCH_VERSION, (__cplusplus / 100) % 100);
  // Two LibTorches on one machine mix easily: the headers must be those of the one that the build found.
  if (std::strcmp(STEPPE_TORCH_VERSION, "unknown") != 0 &&
      std::strstr(TORCH_VERSION, STEPPE_TORCH_VERSION) == nullptr) {
    std::printf("The build found LibTorch %s, the headers are those of %s\n", STEPPE_TORCH_VERSION, TORCH_VERSION);
    return 1;
  }
  constexpr int kSkipped = 77;
  try {
    std::printf("instructions: %s\n", steppe::kernels::cpu::name_of(steppe::kernels::cpu::instruction_set()));
  } catch (const std::invalid_argument& error) {
    std::printf("%s\n", error.what());
    const char* wanted = std::getenv("STEPPE_CPU");
    for (const char* known : {"avx512", "avx2", "sse2", "neon", "portable"})
      if (std::strcmp(wanted, known) == 0) return kSkipped;
    return 1;
  }
  std::fflush(stdout);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
