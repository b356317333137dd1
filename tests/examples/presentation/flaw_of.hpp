// Checks that a text is well-formed XML, as far as pictures and pages need it.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace presentation {

/// Empty if every tag is closed in its order, every attribute quoted and every & part of an entity.
inline std::string flaw_of(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t i = 0; i < xml.size(); ++i) {
    if (xml[i] == '&' && xml.compare(i, 4, "&lt;") != 0 && xml.compare(i, 4, "&gt;") != 0 &&
        xml.compare(i, 5, "&amp;") != 0)
      return "& at " + std::to_string(i);
    if (xml[i] != '<') continue;
    const size_t end = xml.find('>', i);
    const std::string tag = xml.substr(i + 1, end - i - 1), name = tag.substr(0, tag.find_first_of(" /", 1));
    if (end == std::string::npos || tag.find('<') != std::string::npos) return "< at " + std::to_string(i);
    if (std::count(tag.begin(), tag.end(), '"') != 2 * std::count(tag.begin(), tag.end(), '=')) return tag;
    if (tag[0] == '/') {
      if (open.empty() || "/" + open.back() != tag) return tag + " closes nothing";
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
    i = end;
  }
  return open.empty() ? "" : open.back() + " stays open";
}

}  // namespace presentation
