// The races that were found, and a report of them.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "detector.hpp"
#include "history.hpp"
#include "places.hpp"

namespace steppe::races {

struct Race {
  Launch launch;
  Kind kind;
  Access access;
  Conflict with;
  uint64_t times;
};

class RaceList {
 public:
  void add(const Race& race) {
    const std::pair<uint32_t, uint32_t> places(race.access.place, race.with.earlier.place);
    const auto found = by_places_.find(places);
    if (found != by_places_.end())
      found->second.times += race.times;
    else if (by_places_.size() < kMost)
      by_places_.insert({places, race});
  }

  void forget() { by_places_.clear(); }

  std::string report() const {
    std::set<uint32_t> places;
    for (const auto& [pair, race] : by_places_) places.insert({pair.first, pair.second});
    const std::map<uint32_t, std::string> lines = lines_at(places);
    // Every variant of a kernel has places of its own.
    std::map<std::pair<std::string, std::string>, Race> by_lines;
    for (const auto& [pair, race] : by_places_) {
      const auto [at, is_new] =
          by_lines.insert({{innermost(lines.at(pair.first)), innermost(lines.at(pair.second))}, race});
      if (!is_new) at->second.times += race.times;
    }
    std::ostringstream text;
    for (const auto& [pair, race] : by_lines)
      text << "\n"
           << race.times << " times, first in " << race.launch.kernel << ":\n"
           << in_words(race, race.kind, race.access, lines) << in_words(race, race.with.kind, race.with.earlier, lines);
    return text.str();
  }

 private:
  static constexpr size_t kMost = 2000;

  static std::string innermost(const std::string& lines) { return lines.substr(0, lines.find(' ')); }

  static std::string in_words(const Race& race, Kind kind, const Access& access,
                              const std::map<uint32_t, std::string>& lines) {
    const auto threads = static_cast<uint32_t>(race.launch.threads);
    const std::string verb = kind == Kind::Read ? " reads" : kind == Kind::Write ? " writes" : " adds atomically";
    return "  block " + std::to_string(access.thread / threads) + ", thread " +
           std::to_string(access.thread % threads) + verb + " at " + lines.at(access.place) + "\n";
  }

  std::map<std::pair<uint32_t, uint32_t>, Race> by_places_;
};

}  // namespace steppe::races
