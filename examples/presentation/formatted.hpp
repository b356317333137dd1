// printf into a std::string.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdio>
#include <string>

namespace presentation {

template <class... Values>
std::string formatted(const char* format, Values... values) {
  const int length = std::snprintf(nullptr, 0, format, values...);
  std::string text(static_cast<std::size_t>(length > 0 ? length : 0), '\0');
  std::snprintf(text.data(), text.size() + 1, format, values...);
  return text;
}

}  // namespace presentation
