// Models for the CUDA kernels: every recipe, format and kind of numbers, and their memory.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "definition.hpp"

namespace steppe::kernels::cuda {

/// The settings of every layer of a model.
struct Asked {
  std::string name;
  bool centralized = false, filtered = false, scaled = false;
  double quantile = 0.95, eta = 0.01;
  Norm norm = Norm::Direction;
};
inline void PrintTo(const Asked& asked, std::ostream* out) { *out << asked.name; }

inline std::vector<Asked> every_recipe() {
  return {{"plain"},
          {"centralized", true},
          {"centralized_raw", true, false, false, 0.95, 0.01, Norm::Raw},
          {"filtered_0", false, true, false, 0.0},
          {"filtered_30", false, true, false, 0.3},
          {"filtered_75", false, true, false, 0.75},
          {"filtered_95", false, true, false, 0.95},
          {"filtered_999", false, true, false, 0.999},
          {"filtered_per_tensor", false, true, false, 0.9, 0.01, Norm::PerTensor},
          {"scaled_paper", false, false, true, 0.95, 0.01},
          {"scaled_davda54", false, false, true, 0.95, 0.0},
          {"centralized_filtered", true, true, false, 0.9},
          {"filtered_scaled", false, true, true, 0.9},
          {"centralized_scaled", true, false, true, 0.9, 0.0},
          {"centralized_filtered_scaled", true, true, true, 0.9}};
}

inline const char* name_of(Format format) {
  return format == Format::Float32 ? "float32" : format == Format::BFloat16 ? "bfloat16" : "half";
}

/// Values that occur in gradients, and values that should not.
enum class Values { Normal, Shifted, AllEqual, MostlyZero, Denormal, OneHuge, Grid, Zero, kCount };

class Random {
 public:
  explicit Random(uint64_t seed) : bits_(seed) {}
  int64_t below(int64_t n) { return static_cast<int64_t>(bits_() % static_cast<uint64_t>(n)); }
  double uniform() { return static_cast<double>(bits_() >> 11) * 0x1p-53; }
  double normal() { return normal_(bits_); }

 private:
  std::mt19937_64 bits_;
  std::normal_distribution<double> normal_;
};

inline std::vector<float> values_of(Values kind, int64_t n, double size, Random& random) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& each : x) {
    double value = random.normal();
    if (kind == Values::Shifted) value = value * 0.01 + 0.5;
    if (kind == Values::AllEqual) value = 0.3;
    if (kind == Values::MostlyZero && random.uniform() < 0.95) value = 0.0;
    if (kind == Values::Denormal) value *= 1e-41;
    if (kind == Values::Grid) value = static_cast<double>(random.below(9) - 4);
    if (kind == Values::Zero) value = 0.0;
    each = static_cast<float>(value * size);
  }
  if (kind == Values::OneHuge && n > 0) x[static_cast<size_t>(n / 2)] = 3e4f;
  return x;
}

/// A layer of n rows.
inline Numbers layer_of(const Asked& asked, Format format, int64_t rows, int64_t row, std::vector<float> g,
                        Random& random, double rho) {
  Numbers numbers;
  numbers.layer.format = format;
  numbers.layer.size = rows * row;
  numbers.layer.row = asked.centralized && row > 0 ? row : 0;
  numbers.layer.filtered = asked.filtered && numbers.layer.size > 2;
  numbers.layer.quantile = asked.quantile;
  numbers.layer.scaled = asked.scaled;
  numbers.layer.eta = asked.eta;
  numbers.layer.norm = asked.norm;
  numbers.layer.rho = rho;
  numbers.g = std::move(g);
  numbers.w = values_of(Values::Normal, rows * row, 1.0, random);
  for (float& x : numbers.g) x = rounded(x, format);
  for (float& x : numbers.w) x = rounded(x, format);
  return numbers;
}

/// Sizes, kinds of numbers and roles follow from the seed.
inline std::vector<Numbers> random_model(const Asked& asked, Format format, uint64_t seed) {
  Random random(seed);
  std::vector<Numbers> model;
  const int64_t count = 1 + random.below(6);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t shape = random.below(5);
    const int64_t rows = shape == 0 ? 1 : shape == 1 ? random.below(71) : 1 + random.below(40);
    const int64_t row = shape == 1 ? 1 : shape == 4 ? 60 + random.below(150) : random.below(40);
    const auto kind = static_cast<Values>(random.below(static_cast<int64_t>(Values::kCount)));
    const double size = std::pow(10.0, static_cast<double>(random.below(5)) - 3.0);
    model.push_back(layer_of(asked, format, rows, row, values_of(kind, rows * row, size, random), random,
                             seed % 2 == 0 ? 0.05 : 5.0));
    Layer& layer = model.back().layer;
    if (random.below(8) == 0) layer.rho = 0.0;
    if (random.below(8) == 0) layer.counted = false;
    if (random.below(4) == 0) layer.filtered = false;
    if (random.below(4) == 0) layer.row = 0;
  }
  return model;
}

/// Where w + e goes.
enum class Destination { Buffer, Direction, Weights, kCount };

/// Numbers in their format, `offset` of them behind a vector's boundary, between guards.
class Memory {
 public:
  Memory(const std::vector<float>& x, Format format, int64_t offset)
      : format_(format),
        width_(format == Format::Float32 ? 4 : 2),
        count_(x.size()),
        begin_(kGuard + static_cast<size_t>(offset) * width_),
        words_((begin_ + count_ * width_ + kGuard) / sizeof(Word) + 1) {
    std::memset(bytes(), kFill, words_.size() * sizeof(Word));
    assign(x);
  }

  void assign(const std::vector<float>& x) {
    for (size_t i = 0; i < count_; ++i) put(i, x[i]);
  }

  unsigned char* bytes() { return reinterpret_cast<unsigned char*>(words_.data()); }
  size_t size() const { return words_.size() * sizeof(Word); }
  int64_t begin() const { return static_cast<int64_t>(begin_); }

  std::vector<float> numbers() const {
    std::vector<float> x(count_);
    for (size_t i = 0; i < count_; ++i) x[i] = get(i);
    return x;
  }
  bool guards_are_whole() const {
    const auto* const memory = reinterpret_cast<const unsigned char*>(words_.data());
    for (size_t i = 0; i < size(); ++i)
      if ((i < begin_ || i >= begin_ + count_ * width_) && memory[i] != kFill) return false;
    return true;
  }

 private:
  struct alignas(16) Word {
    unsigned char bytes[16];
  };
  static constexpr size_t kGuard = 32;
  static constexpr unsigned char kFill = 0x7e;

  template <class T>
  void put_as(size_t i, float x) {
    T stored;
    narrow(x, stored);
    std::memcpy(bytes() + begin_ + i * width_, &stored, sizeof(stored));
  }
  void put(size_t i, float x) {
    if (format_ == Format::Float32) return put_as<float>(i, x);
    if (format_ == Format::BFloat16) return put_as<BFloat16>(i, x);
    put_as<Half>(i, x);
  }
  template <class T>
  float get_as(size_t i) const {
    T stored;
    std::memcpy(&stored, reinterpret_cast<const unsigned char*>(words_.data()) + begin_ + i * width_, sizeof(stored));
    return widen(stored);
  }
  float get(size_t i) const {
    if (format_ == Format::Float32) return get_as<float>(i);
    return format_ == Format::BFloat16 ? get_as<BFloat16>(i) : get_as<Half>(i);
  }

  Format format_;
  size_t width_, count_, begin_;
  std::vector<Word> words_;
};

/// Every other layer's buffer is one component further from a vector's boundary than its gradient.
inline int64_t buffer_offset(int64_t offset, size_t layer) { return offset + static_cast<int64_t>(layer % 2); }

/// The memory of one layer.
struct LayerMemory {
  LayerMemory(const Numbers& numbers, Destination where, int64_t offset, int64_t of_buffer)
      : g(numbers.g, numbers.layer.format, offset),
        w(numbers.w, numbers.layer.format, offset),
        buffer(std::vector<float>(numbers.w.size(), -7.0f), numbers.layer.format, of_buffer),
        destination(where) {}

  Memory& out() { return destination == Destination::Buffer ? buffer : destination == Destination::Direction ? g : w; }

  Memory g, w, buffer;
  Destination destination;
};

}  // namespace steppe::kernels::cuda
