// Sixteen numbers at a time in plain C++, for every processor; also what double is computed in everywhere.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include <steppe/kernels/formats.hpp>

// Sixteen copies of every loop would cost compile time, and gain none at run time.
#if defined(__clang__)
#define STEPPE_KEEP_ROLLED _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__)
#define STEPPE_KEEP_ROLLED _Pragma("GCC unroll 1")
#else
#define STEPPE_KEEP_ROLLED
#endif

namespace steppe::kernels::cpu::portable {

constexpr int kLanes = 16;

/// Bit i speaks of lane i.
struct Mask {
  uint32_t bits;
};

template <class V>
struct Values {
  V v[kLanes];
};
using Floats = Values<float>;

template <class T>
using Pack = Values<Number<T>>;

template <class T>
Pack<T> load(const T* from) {
  Pack<T> x;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) x.v[i] = widen(from[i]);
  return x;
}
/// The first `count` numbers; zeros in the other lanes.
template <class T>
Pack<T> load(const T* from, int count) {
  Pack<T> x{};
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < count; ++i) x.v[i] = widen(from[i]);
  return x;
}
template <class T>
void store(T* to, const Pack<T>& x, int count = kLanes) {
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < count; ++i) narrow(x.v[i], to[i]);
}
/// The same: plain C++ has no way around the cache.
template <class T>
void stream(T* to, const Pack<T>& x) {
  store(to, x);
}
inline void fence() {}

template <class T>
Pack<T> all(Number<T> value) {
  Pack<T> x;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) x.v[i] = value;
  return x;
}

template <class V>
Values<V> plus(const Values<V>& a, const Values<V>& b) {
  Values<V> x;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) x.v[i] = a.v[i] + b.v[i];
  return x;
}
template <class V>
Values<V> minus(const Values<V>& a, const Values<V>& b) {
  Values<V> x;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) x.v[i] = a.v[i] - b.v[i];
  return x;
}
/// Rounded by itself: never fused with an addition that follows.
template <class V>
Values<V> times(const Values<V>& a, const Values<V>& b) {
  Values<V> x;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) x.v[i] = a.v[i] * b.v[i];
#if (defined(__GNUC__) || defined(__clang__)) && (defined(__FMA__) || !defined(__x86_64__))
  __asm__("" : "+m"(x));
#endif
  return x;
}
template <class V>
Values<V> absolute(const Values<V>& a) {
  Values<V> x;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) x.v[i] = std::fabs(a.v[i]);
  return x;
}
/// Rounded to the storage format T.
template <class T>
Pack<T> rounded(const Pack<T>& a) {
  Pack<T> x;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) x.v[i] = rounded_to<T>(a.v[i]);
  return x;
}

template <class V>
Mask above(const Values<V>& a, const Values<V>& b) {
  uint32_t bits = 0;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(a.v[i] > b.v[i]) << i;
  return {bits};
}
template <class V>
Mask equal(const Values<V>& a, const Values<V>& b) {
  uint32_t bits = 0;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(a.v[i] == b.v[i]) << i;
  return {bits};
}
inline Mask first_lanes(int count) { return {(1u << count) - 1u}; }
inline Mask both(Mask a, Mask b) { return {a.bits & b.bits}; }
inline Mask without(Mask a, Mask b) { return {a.bits & ~b.bits}; }
inline bool any(Mask m) { return m.bits != 0; }
inline int count(Mask m) {
  int n = 0;
  for (uint32_t bits = m.bits; bits != 0; bits &= bits - 1) ++n;
  return n;
}

template <class V>
Values<V> choose(Mask m, const Values<V>& yes, const Values<V>& no) {
  Values<V> x;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i) x.v[i] = (m.bits >> i & 1u) != 0 ? yes.v[i] : no.v[i];
  return x;
}

/// Writes the chosen lanes one after the other, and up to kLanes numbers in all; returns how many were chosen.
template <class V>
int compress(V* to, const Values<V>& x, Mask m) {
  int n = 0;
  STEPPE_KEEP_ROLLED
  for (int i = 0; i < kLanes; ++i)
    if ((m.bits >> i & 1u) != 0) to[n++] = x.v[i];
  return n;
}

/// Sixteen sums in double, one a lane.
template <class V>
class Sums {
 public:
  void add(const Values<V>& x) {
    STEPPE_KEEP_ROLLED
    for (int i = 0; i < kLanes; ++i) v_[i] += static_cast<double>(x.v[i]);
  }
  void add_squares(const Values<V>& x) {
    STEPPE_KEEP_ROLLED
    for (int i = 0; i < kLanes; ++i) {
      const auto y = static_cast<double>(x.v[i]);
      v_[i] += y * y;
    }
  }
  /// Always added in the same order.
  double total() const { return in_order(v_); }

  static double in_order(const double* v) {
    double sum[8];
    for (int i = 0; i < 8; ++i) sum[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; ++i) sum[i] += sum[i + 4];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
  }

 private:
  double v_[kLanes] = {};
};

template <class T>
Sums<Number<T>> make_sums() {
  return {};
}

}  // namespace steppe::kernels::cpu::portable
#undef STEPPE_KEEP_ROLLED
