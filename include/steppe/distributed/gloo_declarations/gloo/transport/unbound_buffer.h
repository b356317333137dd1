// Held by ProcessGroupGloo's point-to-point messages, which LibTorch itself makes. See ../context.h.
// SPDX-License-Identifier: MIT
#pragma once

namespace gloo {
namespace transport {

class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};

}  // namespace transport
}  // namespace gloo
