// A layer made of a few bytes, filtered by the kernels and by sorting. Does not need LibTorch: a fuzzer runs it too.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include <steppe/kernels/cpu/ascent.hpp>

namespace steppe::kernels::cpu {

/// The caller's thread alone, or three nominal ones: then large layers are divided among "threads".
struct Serial {
  int threads = 1;
  int count() const { return threads; }
  template <class Body>
  void run(int64_t tasks, Body&& body) const {
    for (int64_t task = tasks - 1; task >= 0; --task) body(task, static_cast<int>(task) % threads);
  }
};

/// Reads numbers from the bytes of a fuzzer, zeros when they have run out.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : next_(data), left_(size) {}
  template <class N>
  N take() {
    N value{};
    const size_t size = std::min(sizeof(N), left_);
    if (size > 0) std::memcpy(&value, next_, size);
    next_ += size;
    left_ -= size;
    return value;
  }
  bool empty() const { return left_ == 0; }

 private:
  const uint8_t* next_;
  size_t left_;
};

/// A filtered layer: its size, its rows, its quantile and its values all follow from the bytes. Few bytes make a large
/// layer: the values are drawn from a table, scaled here and there, so that ties and plateaus occur.
struct FilteredLayer {
  std::vector<float> gradient, weights;
  int64_t row = 0;
  double quantile = 0.95;
  int threads = 1;

  FilteredLayer(const uint8_t* data, size_t size) {
    Bytes bytes(data, size);
    const auto kind = bytes.take<uint8_t>();
    int64_t n = bytes.take<uint16_t>();
    if (kind & 1) n = 32768 + n * 3;  // large enough to be sampled, and more than one piece
    if ((kind & 2) && n > 0) row = 1 + bytes.take<uint16_t>() % n;
    if (row > 0) n = std::max<int64_t>(n / row, 1) * row;
    quantile = static_cast<double>(bytes.take<uint16_t>()) / 65536.0;
    if (kind & 4) quantile = 0.95;
    threads = kind & 8 ? 3 : 1;
    const double smooth = kind & 16 ? 1.0 : 0.0;
    uint64_t random = bytes.take<uint16_t>() + 1;
    std::vector<float> table;
    while (!bytes.empty() && table.size() < 4096) table.push_back(bytes.take<float>());
    if (table.empty()) table.push_back(1.0f);
    for (int64_t i = 0; i < n; ++i) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      const double noise = static_cast<double>(random >> 40) / 16777216.0;
      gradient.push_back(static_cast<float>(table[(random >> 33) % table.size()] * (1.0 + smooth * noise)));
      weights.push_back(static_cast<float>(noise - 0.5));
    }
  }
};

/// What the filter keeps, by sorting. The means are the kernels' own.
template <class T>
std::vector<bool> kept_by_sorting(const std::vector<Number<T>>& x, double quantile, Number<T> mean) {
  std::vector<Number<T>> distances;
  for (const Number<T> value : x) distances.push_back(std::fabs(rounded_to<T>(value - mean)));
  std::vector<Number<T>> sorted = distances;
  const auto at = static_cast<int64_t>(std::floor(quantile * static_cast<double>(x.size() - 1)));
  std::nth_element(sorted.begin(), sorted.begin() + at, sorted.end());
  std::vector<bool> kept;
  bool any = false;
  for (const Number<T> distance : distances) {
    kept.push_back(distance > sorted[static_cast<size_t>(at)]);
    any = any || kept.back();
  }
  if (!any) kept.assign(x.size(), true);
  return kept;
}

/// A number of the format and those next to it.
template <class T>
std::vector<Number<T>> with_neighbours(Number<T> value) {
  using N = Number<T>;
  const N infinity = std::numeric_limits<N>::infinity();
  std::vector<N> all = {value};
  for (const N side : {infinity, -infinity}) {
    N next = std::nextafter(value, side);
    // In 16 bits up to the next number with another stored value.
    for (N step = std::nextafter(std::fabs(value), infinity) - std::fabs(value);
         sizeof(T) == 2 && !(std::fabs(rounded_to<T>(next) - value) > N{0}); step *= 2)
      next = value + std::copysign(step, side);
    all.push_back(rounded_to<T>(next));
  }
  return all;
}

/// Runs the kernels on the layer in one format with one instruction set; empty, or what is wrong.
template <class T>
std::string check_selection(const FilteredLayer& given, Format format, InstructionSet set) {
  using N = Number<T>;
  use(set);
  constexpr N kFactor = 0.5;
  const size_t n = given.gradient.size();
  std::vector<T> gradient(n), weights(n), out(n);
  std::vector<N> x(n);
  for (size_t i = 0; i < n; ++i) {
    narrow(static_cast<N>(given.gradient[i]), gradient[i]);
    narrow(static_cast<N>(given.weights[i]), weights[i]);
    x[i] = widen(gradient[i]);
  }
  Layer layer;
  layer.format = format;
  layer.direction = gradient.data();
  layer.weights = weights.data();
  layer.out = out.data();
  layer.size = static_cast<int64_t>(n);
  layer.row = given.row;
  layer.filtered = true;
  layer.quantile = given.quantile;
  Ascent ascent;
  const std::vector<Layer> layers = {layer};
  ascent.measure(layers, Serial{given.threads});
  const Statistics seen = ascent.statistics(0);
  bool finite = true;
  for (const N value : x) finite = finite && std::isfinite(value);
  if (!finite) return std::isfinite(seen.gradient_squares) ? "a number that is not finite was not noticed" : "";
  ascent.ascend(layers, {static_cast<double>(kFactor)}, Serial{given.threads});
  if (x.empty()) return "";

  const Passes<T>& pass = passes<T>();
  double unused = 0.0;
  for (int64_t begin = 0; given.row > 0 && begin < layer.size; begin += given.row) {
    double sum = 0.0;
    for (int64_t part = begin; part < begin + given.row; part += kPiece) {
      double of_part = 0.0;
      pass.sums(gradient.data() + part, std::min(kPiece, begin + given.row - part), of_part, unused);
      sum += of_part;
    }
    const N mean = rounded_to<T>(static_cast<N>(sum / static_cast<double>(given.row)));
    for (int64_t i = begin; i < begin + given.row; ++i)
      x[static_cast<size_t>(i)] = rounded_to<T>(x[static_cast<size_t>(i)] - mean);
  }
  for (const N value : x)
    if (!std::isfinite(value))
      return std::isfinite(seen.measure) ? "a difference beyond the format was not noticed" : "";
  double sum = 0.0;
  for (const N value : x) sum += static_cast<double>(value);
  const N mean = rounded_to<T>(static_cast<N>(sum / static_cast<double>(n)));
  // The kernels add up in another order: the rounded mean may be a neighbour.
  std::string wrong;
  for (const N candidate : with_neighbours<T>(mean)) {
    const std::vector<bool> kept = kept_by_sorting<T>(x, given.quantile, candidate);
    std::ostringstream words;
    const auto count = std::count(kept.begin(), kept.end(), true);
    if (seen.kept != count) words << "kept " << seen.kept << " and not " << count << " of " << n;
    double squares = 0.0;
    for (size_t i = 0; i < n && words.tellp() == 0; ++i) {
      const N w = widen(weights[i]);
      const N expected = kept[i] ? rounded_to<T>(w + rounded_to<T>(x[i] * kFactor)) : w;
      if (kept[i]) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      if (std::fabs(widen(out[i]) - expected) > N{0})
        words << "component " << i << " of " << n << " is " << widen(out[i]) << " and not " << expected;
    }
    // Of float's rows the squares about the mean are those of unrounded differences.
    if (words.tellp() == 0 && !(std::fabs(seen.measure - squares) <= (given.row > 0 ? 1e-6 : 1e-12) * squares))
      words << "the squares are " << seen.measure << " and not " << squares;
    if (words.tellp() == 0) return "";
    if (wrong.empty())
      wrong = words.str() + " (row " + std::to_string(given.row) + ", quantile " + std::to_string(given.quantile) + ")";
  }
  return wrong;
}

/// In every format.
inline std::string check_selection(const FilteredLayer& given, InstructionSet set) {
  std::string wrong = check_selection<float>(given, Format::Float32, set);
  if (wrong.empty()) wrong = check_selection<double>(given, Format::Float64, set);
  if (wrong.empty()) wrong = check_selection<BFloat16>(given, Format::BFloat16, set);
  if (wrong.empty()) wrong = check_selection<Half>(given, Format::Half, set);
  return wrong;
}

}  // namespace steppe::kernels::cpu
