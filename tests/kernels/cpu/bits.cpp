// Prints a line for every case: its name and a hash of all bits that the kernels gave. Does not need LibTorch: built
// for two processors, the two programs must print the same. SPDX-License-Identifier: MIT
#include "selection_check.hpp"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <type_traits>
#include <vector>

#include <steppe/kernels/cpu/ascent.hpp>
#include <steppe/kernels/cpu/combination.hpp>
#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/kernels/cpu/updates.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/formats.hpp>

namespace steppe::kernels::cpu {
namespace {

/// FNV-1a. Results that are no numbers count as one.
class Hash {
 public:
  void add(const void* bytes, size_t size) {
    for (size_t i = 0; i < size; ++i) {
      value_ ^= static_cast<const unsigned char*>(bytes)[i];
      value_ *= 0x100000001b3u;
    }
  }
  template <class T>
  void number(T stored) {
    if (std::isnan(widen(stored))) return add("nan", 3);
    add(&stored, sizeof(stored));
  }
  void count(int64_t n) { add(&n, sizeof(n)); }
  template <class T>
  void numbers(const std::vector<T>& all) {
    for (const T& each : all) number(each);
  }
  unsigned long long value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

void print(const std::string& name, const Hash& hash) { std::printf("%s: %016llx\n", name.c_str(), hash.value()); }

/// The same numbers on every machine: splitmix64, and only operations that round once.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  /// From -1 to 1.
  double uniform() { return static_cast<double>(static_cast<int64_t>(bits()) >> 11) * 0x1p-52; }
  /// Nearly normal.
  double normal() {
    const double a = uniform() + uniform(), b = uniform() + uniform();
    return exact::product(a + b, 0.866);
  }

 private:
  uint64_t state_;
};

template <class T>
const char* format_name() {
  return std::is_same_v<T, float>    ? "float32"
         : std::is_same_v<T, double> ? "float64"
         : std::is_same_v<T, Half>   ? "float16"
                                     : "bfloat16";
}
template <class T>
Format format_of() {
  return std::is_same_v<T, float>    ? Format::Float32
         : std::is_same_v<T, double> ? Format::Float64
         : std::is_same_v<T, Half>   ? Format::Half
                                     : Format::BFloat16;
}

template <class T>
T stored(double value) {
  T to;
  narrow(static_cast<Number<T>>(value), to);
  return to;
}

enum class Values { Normal, Shifted, Ties, Zeros, Plateau, Subnormal, Clustered, Huge, Infinite, NotANumber, kCount };
constexpr const char* kValues[] = {"normal",    "shifted",   "ties", "zeros",    "plateau",
                                   "subnormal", "clustered", "huge", "infinite", "nan"};

template <class T>
std::vector<T> values(Values kind, int64_t n, uint64_t seed) {
  Random random(seed);
  constexpr double kSmallest = std::is_same_v<T, double>  ? 0x1p-1074
                               : std::is_same_v<T, Half>  ? 0x1p-24
                               : std::is_same_v<T, float> ? 0x1p-149
                                                          : 0x1p-133;
  std::vector<T> all;
  for (int64_t i = 0; i < n; ++i) {
    const double x = random.normal();
    double value = x;
    if (kind == Values::Shifted) value = exact::product(x, 0.01) + 0.5;
    if (kind == Values::Ties) value = 0.1 * static_cast<double>(random.below(9) - 4);
    if (kind == Values::Zeros) value = random.below(10) == 0 ? x : 0.0;
    if (kind == Values::Plateau) value = random.below(10) == 0 ? 0.7 : 0.1 * x;
    if (kind == Values::Subnormal) value = kSmallest * static_cast<double>(random.below(200) - 100);
    // Where the sample of a layer says little.
    if (kind == Values::Clustered) value = i / 1500 % 9 == 4 ? 100.0 * x : 0.001 * x;
    if (kind == Values::Huge && i == n / 2) value = 30000.0;
    if (kind == Values::Infinite && i == n / 2) value = -std::numeric_limits<double>::infinity();
    if (kind == Values::NotANumber && i == n / 2) value = std::numeric_limits<double>::quiet_NaN();
    all.push_back(stored<T>(value));
  }
  return all;
}

struct Features {
  const char* name;
  int64_t row_share;  ///< rows of this part of a layer; 0: not centralized
  double quantile;    ///< 0: not filtered
  bool scaled;
};

/// A layer measured and moved, to memory of its own, over the direction or over the weights.
template <class T>
void ascend(const Features& features, Values kind, int64_t n, int threads, int place) {
  const std::string name = std::string("ascent ") + format_name<T>() + " " + features.name + " " +
                           kValues[static_cast<int>(kind)] + " " + std::to_string(n);
  std::vector<T> g = values<T>(kind, n, 1), w = values<T>(Values::Normal, n, 2), out = values<T>(Values::Ties, n, 3);
  Layer layer;
  layer.format = format_of<T>();
  layer.direction = g.data();
  layer.weights = w.data();
  layer.out = place == 1 ? g.data() : place == 2 ? w.data() : out.data();
  layer.size = n;
  layer.row = features.row_share == 0 ? 0 : n % features.row_share == 0 ? n / features.row_share : n;
  layer.filtered = features.quantile > 0.0;
  layer.quantile = features.quantile;
  layer.scaled = features.scaled;
  layer.eta = 0.01;
  Ascent ascent;
  ascent.measure({layer}, Serial{threads});
  const Statistics& seen = ascent.statistics(0);
  Hash hash;
  hash.number(seen.gradient_squares);
  hash.number(seen.measure);
  // Of a direction that is not finite nothing else is promised: it moves nothing.
  if (std::isfinite(seen.gradient_squares) && std::isfinite(seen.measure)) {
    hash.number(seen.length);
    hash.count(seen.kept);
    hash.count(seen.tail_found ? 1 : 0);
    const double factor = seen.measure > 0.0 ? 0.37 * std::sqrt(static_cast<double>(n)) / std::sqrt(seen.measure) : 1.0;
    ascent.ascend({layer}, {factor}, Serial{threads});
    hash.numbers(g);
    hash.numbers(w);
    hash.numbers(out);
  }
  print(name, hash);
}

template <class T>
void ascents() {
  const Features all[] = {{"plain", 0, 0.0, false},
                          {"centralized", 25, 0.0, false},
                          {"centralized_whole", 1, 0.0, false},
                          {"filtered", 0, 0.95, false},
                          {"filtered_half", 0, 0.5, false},
                          {"scaled", 0, 0.0, true},
                          {"centralized_filtered", 7000, 0.9, false},
                          {"filtered_scaled", 0, 0.9, true},
                          {"centralized_scaled", 25, 0.0, true},
                          {"centralized_filtered_scaled", 1, 0.9, true}};
  int place = 0;
  for (const Features& features : all)
    for (int kind = 0; kind < static_cast<int>(Values::kCount); ++kind) {
      for (const int64_t n : {0, 1, 15, 16, 17, 63, 1000})
        ascend<T>(features, static_cast<Values>(kind), n, 1, place++ % 3);
      // More than a piece, and enough for a window.
      ascend<T>(features, static_cast<Values>(kind), 70000, 3, place++ % 3);
    }
}

/// Non-temporal stores, from aligned memory and from other.
template <class T>
void streams() {
  const int64_t n = 1000;
  const std::vector<T> x = values<T>(Values::Normal, n, 4), y = values<T>(Values::Shifted, n, 5);
  for (const int64_t offset : {0, 1}) {
    Memory memory;
    T* const out = memory.room_for<T>(n + offset) + offset;
    Hash hash;
    Rule<T> rule;
    passes<T>().ascend(x.data(), y.data(), out, n, rule, static_cast<Number<T>>(0.3), true);
    hash.numbers(std::vector<T>(out, out + n));
    hash.number(passes<T>().combine(static_cast<Number<T>>(0.3), x.data(), static_cast<Number<T>>(1.7), y.data(), out,
                                    n, true));
    hash.numbers(std::vector<T>(out, out + n));
    print(std::string("streamed ") + format_name<T>() + " offset " + std::to_string(offset), hash);
  }
}

template <class T>
void combinations() {
  for (const int64_t n : {0, 1, 15, 16, 17, 63, 1000, 70000})
    for (const Values kind : {Values::Normal, Values::Shifted, Values::Subnormal, Values::Infinite}) {
      std::vector<T> x = values<T>(Values::Normal, n, 6), y = values<T>(kind, n, 7), out(x.size());
      const std::vector<Pair> both = {{format_of<T>(), x.data(), y.data(), out.data(), n}};
      const std::vector<Pair> in_place = {{format_of<T>(), nullptr, y.data(), y.data(), n}};
      const Serial thread;
      Hash hash;
      const ProductSums sums = PairPass(both, thread).products();
      for (const double sum : {sums.xx, sums.xy, sums.yy}) hash.number(sum);
      hash.number(PairPass(both, thread).combine(0.7, -1.1));
      hash.numbers(out);
      hash.number(PairPass(in_place, thread).combine(0.7, -1.1));
      hash.numbers(y);
      print(std::string("combination ") + format_name<T>() + " " + kValues[static_cast<int>(kind)] + " " +
                std::to_string(n),
            hash);
    }
}

/// Every number of a 16-bit format times factors that round, and every finite one with half of its last place added.
template <class T>
void conversions() {
  constexpr int64_t kAll = 65536;
  constexpr int kPlaces = std::is_same_v<T, Half> ? 11 : 8;
  std::vector<T> x(kAll), half_place(kAll), out(kAll);
  for (int64_t i = 0; i < kAll; ++i) {
    const auto at = static_cast<size_t>(i);
    x[at].bits = static_cast<uint16_t>(i);
    int exponent = 0;
    const double value = static_cast<double>(widen(x[at]));
    if (std::isfinite(value)) std::frexp(value, &exponent);
    half_place[at] = stored<T>(std::ldexp(1.0, exponent - 1 - kPlaces));
  }
  const float no_number = exact::float_of(0x7fffffffu);  // rounded to bfloat16 by adding, it would be -0
  for (const float factor : {1.0f, 0.5f, 0x1p-5f, 0x1.8p-7f, 0x1.010101p0f, 0x1.555556p-2f, 0x1p9f, no_number}) {
    Hash hash;
    hash.number(passes<T>().combine(factor, x.data(), 0.0f, nullptr, out.data(), kAll, false));
    hash.numbers(out);
    print(std::string("conversion ") + format_name<T>() + " times " + std::to_string(exact::bits_of(factor)), hash);
  }
  for (const float sign : {1.0f, -1.0f}) {
    Hash hash;
    hash.number(passes<T>().combine(1.0f, x.data(), sign, half_place.data(), out.data(), kAll, false));
    hash.numbers(out);
    print(std::string("conversion ") + format_name<T>() + (sign > 0.0f ? " plus" : " minus") + " half a place", hash);
  }
}

struct NamedRule {
  const char* name;
  UpdateRule rule;
};

std::vector<NamedRule> rules() {
  using Kind = UpdateRule::Kind;
  UpdateRule start;
  start.lr = 0.05;
  start.eps = 1e-3;
  start.beta1 = 0.9;
  start.beta2 = 0.99;
  start.alpha = 0.95;
  start.lr_decay = 0.1;
  std::vector<NamedRule> all;
  const auto add = [&](const char* name, Kind kind, double momentum, double decay) -> UpdateRule& {
    UpdateRule rule = start;
    rule.kind = kind;
    rule.momentum = momentum;
    rule.weight_decay = decay;
    all.push_back({name, rule});
    return all.back().rule;
  };
  add("sgd", Kind::SGD, 0.0, 0.1);
  add("sgd_with_momentum", Kind::SGD, 0.9, 0.0).dampening = 0.25;
  add("sgd_fresh", Kind::SGD, 0.9, 0.0).fresh = true;
  add("sgd_nesterov", Kind::SGD, 0.9, 0.1).nesterov = true;
  add("adam", Kind::Adam, 0.0, 0.1);
  add("adam_amsgrad", Kind::Adam, 0.0, 0.0).amsgrad = true;
  add("adamw", Kind::AdamW, 0.0, 0.1);
  add("adagrad", Kind::Adagrad, 0.0, 0.1);
  add("rmsprop", Kind::RMSprop, 0.0, 0.1);
  add("rmsprop_with_momentum", Kind::RMSprop, 0.9, 0.0);
  add("rmsprop_centered", Kind::RMSprop, 0.0, 0.0).centered = true;
  add("rmsprop_with_all", Kind::RMSprop, 0.9, 0.1).centered = true;
  return all;
}

/// Three steps.
template <class T>
void updates() {
  for (const NamedRule& named : rules())
    for (const int64_t n : {0, 1, 15, 16, 17, 63, 1000, 70000}) {
      std::vector<T> w = values<T>(Values::Normal, n, 8), kept[kKept];
      // Averages of squares are not below zero, nor below the square of the mean.
      for (int k = 0; k < kKept; ++k)
        for (const T& each : values<T>(Values::Normal, n, 9))
          kept[k].push_back(
              stored<T>(k == 2 && !named.rule.amsgrad ? 0.0 : std::fabs(static_cast<double>(widen(each)))));
      UpdateRule rule = named.rule;
      double power1 = 1.0, power2 = 1.0;  // std::pow is not the same everywhere
      for (int step = 1; step <= 3; ++step) {
        power1 = exact::product(power1, rule.beta1);
        power2 = exact::product(power2, rule.beta2);
        rule.step = step;
        rule.c1 = 1.0 - power1;
        rule.c2 = 1.0 - power2;
        std::vector<T> g = values<T>(step == 2 ? Values::Shifted : Values::Normal, n, 10 + static_cast<uint64_t>(step));
        Updated one;
        one.format = format_of<T>();
        one.w = w.data();
        one.g = g.data();
        for (int k = 0; k < kKept; ++k)
          if (rule.keeps(k)) one.kept[k] = kept[k].data();
        one.size = n;
        UpdatePass pass;
        pass.add(one);
        pass.run(rule, Serial());
      }
      Hash hash;
      hash.numbers(w);
      for (const std::vector<T>& each : kept) hash.numbers(each);
      print(std::string("update ") + format_name<T>() + " " + named.name + " " + std::to_string(n), hash);
    }
}

template <class T>
void all_cases() {
  ascents<T>();
  streams<T>();
  combinations<T>();
  if constexpr (sizeof(T) == 2) conversions<T>();
  if constexpr (sizeof(T) <= 4) updates<T>();
}

}  // namespace
}  // namespace steppe::kernels::cpu

/// Without an argument the cases, on the instructions that STEPPE_CPU names; with one the names that it may have.
int main(int argc, char** /*argv*/) try {
  using namespace steppe::kernels;
  if (argc > 1) {
    for (const cpu::InstructionSet set : cpu::available_instruction_sets()) std::printf("%s\n", cpu::name_of(set));
    return 0;
  }
  cpu::all_cases<float>();
  cpu::all_cases<double>();
  cpu::all_cases<BFloat16>();
  cpu::all_cases<Half>();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
