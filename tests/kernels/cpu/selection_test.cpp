// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/kernels/cpu/filter_bounds.hpp>

#include <cstdlib>
#include <fstream>
#include <random>

#include "selection_check.hpp"

namespace steppe::kernels::cpu {
namespace {

/// Inputs as from a fuzzer: floats of every kind, and raw bytes.
std::vector<uint8_t> random_bytes(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 9; ++i) bytes.push_back(static_cast<uint8_t>(random()));
  const bool raw = seed % 5 == 0;
  const auto distinct = static_cast<size_t>(1) << (random() % 9);
  for (size_t i = 0; i < distinct; ++i) {
    float value = std::ldexp(static_cast<float>(random() % 2001) - 1000.0f,
                             static_cast<int>(random() % 3) * (seed % 3 == 0 ? 40 : 1) - 10);
    if (raw) {
      const auto bits = static_cast<uint32_t>(random());
      std::memcpy(&value, &bits, sizeof(value));
    }
    const auto* from = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), from, from + sizeof(value));
  }
  return bytes;
}

TEST(Selection, IsThatOfSortingOnEveryInstructionSet) {
  const InstructionSet before = instruction_set();
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const std::vector<uint8_t> bytes = random_bytes(seed);
    const FilteredLayer layer(bytes.data(), bytes.size());
    for (const InstructionSet set : available_instruction_sets())
      EXPECT_EQ(check_selection(layer, set), "") << name_of(set) << ", seed " << seed;
  }
  use(before);
}

/// In 16 bits a distance beyond the window may round to one that lies in it: both are 1, and none is the larger.
TEST(WindowLists, AreNotSureOfWhatRoundingMayMoveAcrossAnEdge) {
  const float mean = 0x1p-8f, inside = -0.99609375f, beyond = 1.0078125f;  // 1 and 1.00390625 from the mean
  BFloat16 values[2];
  narrow(inside, values[0]);
  narrow(beyond, values[1]);
  ASSERT_EQ(rounded_to<BFloat16>(beyond - mean), 1.0f);
  Window<float> window;
  window.centre = mean;
  window.low = 0.5f;
  for (const bool is_near : {true, false}) {
    window.high = is_near ? 1.002f : 1.5f;
    WindowLists<BFloat16> lists;
    Memory scratch, keys;
    lists.begin(passes<BFloat16>(), 1, window, 0.5);
    lists.sweep(0, scratch,
                [&](Seen<float>& seen) { passes<BFloat16>().window(values, 2, Rule<BFloat16>(), window, seen); });
    lists.settle();
    float found = 0.0f;
    EXPECT_EQ(lists.find(1, mean, keys, found), !is_near);
    if (is_near) continue;
    int64_t kept = -1;
    EXPECT_EQ(found, 1.0f);
    EXPECT_EQ(lists.kept_squares(filter_bounds<BFloat16>(mean, found), kept), 0.0);
    EXPECT_EQ(kept, 0);
  }
}

/// Zeros that were never written to take no memory; calloc's may be what the kernels read here.
class Zeros {
 public:
  Zeros(int64_t count, size_t size) : block_(std::calloc(static_cast<size_t>(count), size)) {}
  ~Zeros() { std::free(block_); }
  Zeros(const Zeros&) = delete;
  Zeros& operator=(const Zeros&) = delete;
  template <class N>
  N* as() const {
    return static_cast<N*>(block_);
  }

 private:
  void* block_;
};

int64_t gigabytes_available() {
  std::ifstream info("/proc/meminfo");
  std::string name, unit;
  for (int64_t kilobytes = 0; info >> name >> kilobytes >> unit;)
    if (name == "MemAvailable:") return kilobytes >> 20;
  return 0;
}

#if defined(__SANITIZE_ADDRESS__)
#define STEPPE_ADDRESS_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STEPPE_ADDRESS_SANITIZED
#endif
#endif
#ifdef STEPPE_ADDRESS_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

constexpr int64_t kMany = (int64_t{1} << 31) + 100;

TEST(Ascent, MovesMoreThanTwoToThe31Components) {
  if (kSanitized) GTEST_SKIP() << "needs more memory than AddressSanitizer leaves";
  if (gigabytes_available() < 6) GTEST_SKIP() << "needs 6 GB of memory";
  const Zeros memory(kMany, sizeof(BFloat16));
  auto* const g = memory.as<BFloat16>();
  ASSERT_NE(g, nullptr);
  narrow(3.0f, g[5]);
  narrow(4.0f, g[kMany - 2]);
  Layer layer;
  layer.format = Format::BFloat16;
  layer.direction = layer.weights = layer.out = g;  // w is g here: one block is enough
  layer.size = kMany;
  Ascent ascent;
  ascent.measure({layer}, Serial{2});
  EXPECT_EQ(ascent.statistics(0).measure, 25.0);
  ascent.ascend({layer}, {0.5}, Serial{2});
  EXPECT_EQ(widen(g[5]), 4.5f);
  EXPECT_EQ(widen(g[kMany - 2]), 6.0f);
  EXPECT_EQ(widen(g[kMany - 1]), 0.0f);
}

TEST(Ascent, FiltersMoreThanTwoToThe31Components) {
  if (kSanitized) GTEST_SKIP() << "needs more memory than AddressSanitizer leaves";
  if (gigabytes_available() < 2) GTEST_SKIP() << "needs 2 GB of memory";
  const Zeros memory(kMany, sizeof(float));
  auto* const g = memory.as<float>();
  if (g == nullptr) GTEST_SKIP() << "needs 8 GB of address space";
  for (int64_t i = 0; i < 50; ++i) g[i * (kMany / 50)] = static_cast<float>(i + 1);
  Layer layer;
  layer.direction = g;
  layer.weights = g;
  layer.size = kMany;
  layer.filtered = true;
  layer.quantile = 1.0 - 9.5 / static_cast<double>(kMany);
  Ascent ascent;
  ascent.measure({layer}, Serial{2});
  // From the top, 10 of the distances are above the one that is the threshold: 41 to 50.
  EXPECT_EQ(ascent.statistics(0).kept, 10);
  double squares = 0.0;
  for (int i = 41; i <= 50; ++i) squares += i * i;
  EXPECT_DOUBLE_EQ(ascent.statistics(0).measure, squares);
}

}  // namespace
}  // namespace steppe::kernels::cpu
