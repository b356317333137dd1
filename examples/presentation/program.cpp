// SPDX-License-Identifier: MIT
#include "presentation/program.hpp"

#include <cstdio>
#include <exception>
#include <string>

namespace presentation {

int carried_out(const char* program, const std::function<int()>& run) {
  try {
    return run();
  } catch (const std::exception& error) {
    // LibTorch's errors continue with a stack trace.
    const std::string what = error.what();
    std::fprintf(stderr, "%s: %s\n", program, what.substr(0, what.find('\n')).c_str());
    return 1;
  }
}

}  // namespace presentation
