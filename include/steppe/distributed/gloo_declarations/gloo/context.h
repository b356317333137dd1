// What LibTorch's ProcessGroupGloo.hpp needs of Gloo's headers, which LibTorch does not bring along: it only holds
// pointers to Gloo's objects, which LibTorch itself makes. These five files declare no more than that, and hold for
// LibTorch 1.13 to 2.15; Gloo's own headers are used instead wherever the compiler finds them.
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>

#include <gloo/transport/unbound_buffer.h>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
