// Who has last read and written each byte of memory, and whether an access is in order with them.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "detector.hpp"
#include "order.hpp"

namespace steppe::races {

struct Access {
  uint32_t time = 0;  ///< by the thread's own clock; 0: there was none
  uint32_t thread = 0;
  uint32_t place = 0;  ///< in the program
};

/// An earlier access that is not known to come before.
struct Conflict {
  Kind kind;
  Access earlier;
};

class History {
 public:
  /// Enters an access to one byte by a thread that knows of the others as told.
  std::optional<Conflict> enter(uintptr_t address, Kind kind, const Access& mine, const Clock& known) {
    Byte& byte = at(address);
    const auto conflict = conflict_of(byte, kind, known);
    if (kind == Kind::Read) add_reader(byte, mine, known);
    if (kind == Kind::Atomic) byte.atomic = mine;
    if (kind == Kind::Write) {
      byte.write = mine;
      byte.atomic = byte.reader = Access();
      byte.readers.clear();
    }
    return conflict;
  }

 private:
  struct Byte {
    Access write, atomic, reader;
    std::vector<Access> readers;  ///< by thread, once there are several that do not know of each other
  };
  static constexpr size_t kPage = 1024;
  struct Page {
    Byte bytes[kPage];
  };

  /// Accesses of earlier launches, which may have had more threads, are known.
  static bool knows(const Clock& known, const Access& access) {
    return access.thread >= known.size() || access.time <= known[access.thread];
  }

  static std::optional<Conflict> conflict_of(const Byte& byte, Kind kind, const Clock& known) {
    if (!knows(known, byte.write)) return Conflict{Kind::Write, byte.write};
    // Each atomic has seen the one before, so that the last stands for all.
    if (kind != Kind::Atomic && !knows(known, byte.atomic)) return Conflict{Kind::Atomic, byte.atomic};
    if (kind == Kind::Read) return std::nullopt;
    if (!knows(known, byte.reader)) return Conflict{Kind::Read, byte.reader};
    for (const Access& reader : byte.readers)
      if (!knows(known, reader)) return Conflict{Kind::Read, reader};
    return std::nullopt;
  }

  static void add_reader(Byte& byte, const Access& mine, const Clock& known) {
    if (byte.readers.empty() && knows(known, byte.reader)) {
      byte.reader = mine;
      return;
    }
    byte.readers.resize(known.size());
    byte.readers[mine.thread] = mine;
  }

  Byte& at(uintptr_t address) {
    const uintptr_t number = address / kPage;
    if (page_ == nullptr || number != number_) {
      std::unique_ptr<Page>& page = pages_[number];
      if (page == nullptr) page = std::make_unique<Page>();
      page_ = page.get();
      number_ = number;
    }
    return page_->bytes[address % kPage];
  }

  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  Page* page_ = nullptr;  ///< the last one, and its number
  uintptr_t number_ = 0;
};

}  // namespace steppe::races
