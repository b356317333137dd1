// A network interface in use; only pointers to it are held. See ../context.h.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>

namespace gloo {
namespace transport {

class Device;

}  // namespace transport
}  // namespace gloo
