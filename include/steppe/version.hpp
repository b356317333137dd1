// The version of the library; CMake reads it from here.
// SPDX-License-Identifier: MIT
#pragma once

#define STEPPE_VERSION_MAJOR 0
#define STEPPE_VERSION_MINOR 1
#define STEPPE_VERSION_PATCH 0
#define STEPPE_VERSION "0.1.0"

// The version is a part of every name that the linker sees: a program may hold libraries that were built over different
// ones. Code that writes steppe::SAM is not affected.
#define STEPPE_VERSIONED_NAME(major, minor, patch) v##major##_##minor##_##patch
#define STEPPE_NAMESPACE_OF(major, minor, patch) STEPPE_VERSIONED_NAME(major, minor, patch)
#define STEPPE_NAMESPACE_BEGIN \
  namespace steppe {           \
  inline namespace STEPPE_NAMESPACE_OF(STEPPE_VERSION_MAJOR, STEPPE_VERSION_MINOR, STEPPE_VERSION_PATCH) {
#define STEPPE_NAMESPACE_END \
  }                          \
  }

// Code outside of templates is compiled once into the library steppe::compiled where STEPPE_COMPILED is defined;
// otherwise the header that declares it includes it.
#ifdef STEPPE_COMPILED
#define STEPPE_INLINE
#else
#define STEPPE_INLINE inline
#endif
