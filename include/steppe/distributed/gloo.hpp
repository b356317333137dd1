// LibTorch's Gloo process group: sums over CPUs and a network, in every LibTorch that was built with it.
// SPDX-License-Identifier: MIT
#pragma once

// LibTorch's header for it needs Gloo's headers, which LibTorch does not include. The CMake target steppe::gloo adds
// declarations in their place (gloo_declarations/), after all other folders: Gloo's own headers take precedence where
// they exist.
#if defined(__has_include)
#if __has_include(<gloo/context.h>)
#define STEPPE_HAS_GLOO_HEADERS
#endif
#endif

#ifdef STEPPE_HAS_GLOO_HEADERS
#ifndef USE_C10D_GLOO
#define USE_C10D_GLOO  // without it ProcessGroupGloo.hpp is empty; LibTorch's own CMake package defines it as well
#endif
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif

#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <exception>
#include <string>
#include <type_traits>

#include <steppe/distributed/world.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace distributed {

#ifdef STEPPE_HAS_GLOO_HEADERS

/// The network interfaces of GLOO_SOCKET_IFNAME (several are separated by commas); without it the loopback, if
/// MASTER_ADDR is that; else the one of the machine's host name.
inline void add_gloo_devices(c10d::ProcessGroupGloo::Options& options, bool is_alone) {
  using Gloo = c10d::ProcessGroupGloo;
  const char* const interfaces = variable("GLOO_SOCKET_IFNAME");
  if (interfaces != nullptr) {
    const std::string names = interfaces;
    for (size_t from = 0; from <= names.size();) {
      const size_t end = (std::min)(names.find(',', from), names.size());
      const std::string name = names.substr(from, end - from);
      try {
        options.devices.push_back(Gloo::createDeviceForInterface(name));
      } catch (const std::exception& error) {
        TORCH_CHECK(
            false, "steppe: Gloo cannot use the network interface '", name,
            "' of GLOO_SOCKET_IFNAME; set it to one of this machine's (`ip address` lists them): ", first_line(error));
      }
      from = end + 1;
    }
    return;
  }
  const char* const address = variable("MASTER_ADDR");
  const std::string host = address != nullptr ? address : "";
  if (is_alone || host == "localhost" || host.rfind("127.", 0) == 0)
    options.devices.push_back(Gloo::createDeviceForHostname("127.0.0.1"));
  else if (host == "::1")
    options.devices.push_back(Gloo::createDeviceForHostname(host));
  else
    options.devices.push_back(Gloo::createDefaultDevice());
}

/// Makes a ProcessGroup of a backend. Chosen by what exists, not by version: in LibTorch 1.13 the backend itself is the
/// group, and up to 2.4 a group's options name its backend. A template: only the branch that is taken must compile.
template <class Group, class Backend>
c10::intrusive_ptr<Group> group_of(const c10::intrusive_ptr<Backend>& backend, const World& world) {
  if constexpr (std::is_base_of_v<Group, Backend>) {
    static_cast<void>(world);
    return backend;
  } else {
    c10::intrusive_ptr<Group> group;
    if constexpr (std::is_constructible_v<Group, c10::intrusive_ptr<c10d::Store>, int, int>) {
      group = c10::make_intrusive<Group>(world.store, world.rank, world.size);
      group->setDefaultBackend(Group::BackendType::GLOO);
    } else {
      group = c10::make_intrusive<Group>(world.store, world.rank, world.size,
                                         c10::make_intrusive<typename Group::Options>("gloo"));
    }
    for (const c10::DeviceType type : {c10::DeviceType::CPU, c10::DeviceType::CUDA})
      group->setBackend(type, Group::BackendType::GLOO, backend);
    return group;
  }
}

/// A Gloo group of all processes, which call this the same number of times. Its messages have the World's timeout.
///
/// The interface is that of the environment variable GLOO_SOCKET_IFNAME, or found by MASTER_ADDR and the host name.
///
/// Errors: a World without a store; an interface that does not exist; others that cannot be reached in time.
inline c10::intrusive_ptr<c10d::ProcessGroup> gloo(const World& world) {
  TORCH_CHECK(world.store, "steppe: the World has no store; make it with steppe::distributed::world()");
  const auto options = c10d::ProcessGroupGloo::Options::create(world.timeout);
  add_gloo_devices(*options, world.size == 1);
  const int64_t number = world.store->add("groups/" + std::to_string(world.rank), 1);
  const auto store = c10::make_intrusive<c10d::PrefixStore>("gloo/" + std::to_string(number), world.store);
  c10::intrusive_ptr<c10d::ProcessGroupGloo> backend;
  try {
    backend = c10::make_intrusive<c10d::ProcessGroupGloo>(store, world.rank, world.size, options);
  } catch (const std::exception& error) {
    TORCH_CHECK(false, "steppe: process ", world.rank, " could not connect with the ", world.size - 1,
                " others through Gloo. Another one may have ended; or they do not reach each other: then set "
                "GLOO_SOCKET_IFNAME to the network interface that they share. ",
                first_line(error));
  }
  return group_of<c10d::ProcessGroup>(backend, world);
}

#else

template <class AnyWorld>
c10::intrusive_ptr<c10d::ProcessGroup> gloo(const AnyWorld&) {
  static_assert(sizeof(AnyWorld) == 0,
                "steppe: gloo() needs Gloo's headers, or steppe's declarations in their place: link the CMake target "
                "steppe::gloo, or add steppe/distributed/gloo_declarations to the include folders");
  return c10::intrusive_ptr<c10d::ProcessGroup>();
}

#endif

}  // namespace distributed
STEPPE_NAMESPACE_END
