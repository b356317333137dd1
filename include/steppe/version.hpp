// The version of the library; CMake reads it from here.
// SPDX-License-Identifier: MIT
#pragma once

#define STEPPE_VERSION_MAJOR 0
#define STEPPE_VERSION_MINOR 1
#define STEPPE_VERSION_PATCH 0
#define STEPPE_VERSION "0.1.0"
