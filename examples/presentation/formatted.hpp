// printf into a std::string.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdio>
#include <string>

namespace presentation {

/// Cut at 599 characters.
template <class... Values>
std::string formatted(const char* format, Values... values) {
  char text[600];
  std::snprintf(text, sizeof(text), format, values...);
  return text;
}

}  // namespace presentation
