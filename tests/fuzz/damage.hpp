// Files that were damaged, in a way that the bytes of an input decide.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace fuzz {

/// Reads the bytes of an input, zeros at its end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool any() const { return size_ > 0; }
  uint8_t next() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  uint64_t next_word() {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word = word << 8 | next();
    return word;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

/// Bytes of the file changed, inserted, left out, or cut off.
inline std::string damaged(std::string file, Bytes bytes) {
  while (bytes.any()) {
    const uint8_t kind = bytes.next();
    const size_t at = file.empty() ? 0 : bytes.next_word() % file.size();
    switch (kind % 4) {
      case 0:
        if (!file.empty()) file[at] = static_cast<char>(bytes.next());
        break;
      case 1:
        file.insert(at, 1, static_cast<char>(bytes.next()));
        break;
      case 2:
        file.erase(at, bytes.next() % 16);
        break;
      case 3:
        if (bytes.next() % 8 == 0) file.resize(at);
        break;
    }
  }
  return file;
}

/// Calls check(data, size) with inputs as a fuzzer would make them. The seed is fixed: a failure is reproducible.
template <class Check>
void for_each_input(int count, Check&& check) {
  std::mt19937 random(1);
  for (int i = 0; i < count; ++i) {
    std::vector<uint8_t> input(1 + random() % 40);
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    check(input.data(), input.size());
  }
}

}  // namespace fuzz
