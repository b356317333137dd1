// Sixteen numbers at a time in plain C++, for every processor; also what double is computed in without AVX2.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/formats.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

// Where a compiler may fuse products and sums: a vector register's bytes, and its constraint.
#if defined(__GNUC__) || defined(__clang__)
#if defined(__aarch64__)
#define STEPPE_REGISTER_BYTES 16
#define STEPPE_REGISTER "w"
#elif defined(__x86_64__) && defined(__FMA__)
#define STEPPE_REGISTER_BYTES 32
#define STEPPE_REGISTER "x"
#endif
#endif

constexpr int kPacks = 4;  ///< packs that are compressed together: their masks have 64 bits

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu::portable {

constexpr int kLanes = 16;
/// Of such formats only the general loops are compiled: another set has them on every processor but very old ones.
template <class T>
#if defined(__x86_64__)
constexpr bool kRarelyUsed = true;
#elif defined(__AARCH64EL__) && defined(__ARM_NEON)
constexpr bool kRarelyUsed = sizeof(T) <= sizeof(float);
#else
constexpr bool kRarelyUsed = false;
#endif
/// A pass that sums what it writes may stream it.
constexpr bool kStreamsWithSums = true;

/// All bits of a selected lane are set.
struct Mask {
  int32_t lane[kLanes];
};

template <class V>
struct Values {
  V v[kLanes];
};
using Floats = Values<float>;

template <class T>
using Pack = Values<Number<T>>;
template <class T>
using MaskOf = Mask;

template <class T>
Pack<T> load(const T* from) {
  Pack<T> x;
  for (int i = 0; i < kLanes; ++i) x.v[i] = widen(from[i]);
  return x;
}
/// The first `count` numbers; zeros in the other lanes.
template <class T>
Pack<T> load(const T* from, int count) {
  Pack<T> x{};
  for (int i = 0; i < count; ++i) x.v[i] = widen(from[i]);
  return x;
}
template <class T>
void store(T* to, const Pack<T>& x, int count = kLanes) {
  for (int i = 0; i < count; ++i) narrow(x.v[i], to[i]);
}
/// The same: plain C++ has no non-temporal stores.
template <class T>
void stream(T* to, const Pack<T>& x) {
  store(to, x);
}
inline void fence() {}

template <class T>
Pack<T> all(Number<T> value) {
  Pack<T> x;
  for (int i = 0; i < kLanes; ++i) x.v[i] = value;
  return x;
}

template <class V>
Values<V> plus(const Values<V>& a, const Values<V>& b) {
  Values<V> x;
  for (int i = 0; i < kLanes; ++i) x.v[i] = a.v[i] + b.v[i];
  return x;
}
template <class V>
Values<V> minus(const Values<V>& a, const Values<V>& b) {
  Values<V> x;
  for (int i = 0; i < kLanes; ++i) x.v[i] = a.v[i] - b.v[i];
  return x;
}
/// Rounded separately: never fused with an addition that follows.
template <class V>
Values<V> times(const Values<V>& a, const Values<V>& b) {
  Values<V> x;
  for (int i = 0; i < kLanes; ++i) x.v[i] = a.v[i] * b.v[i];
#if (defined(__GNUC__) || defined(__clang__)) && (defined(__FMA__) || !defined(__x86_64__))
  __asm__("" : "+m"(x));
#endif
  return x;
}
template <class V>
Values<V> over(const Values<V>& a, const Values<V>& b) {
  Values<V> x;
  for (int i = 0; i < kLanes; ++i) x.v[i] = a.v[i] / b.v[i];
  return x;
}
template <class V>
Values<V> root(const Values<V>& a) {
  Values<V> x;
  for (int i = 0; i < kLanes; ++i) x.v[i] = std::sqrt(a.v[i]);
  return x;
}
template <class V>
Values<V> absolute(const Values<V>& a) {
  Values<V> x;
  for (int i = 0; i < kLanes; ++i) x.v[i] = std::fabs(a.v[i]);
  return x;
}
/// Rounded to the storage format T.
template <class T>
Pack<T> rounded(const Pack<T>& a) {
  Pack<T> x;
  for (int i = 0; i < kLanes; ++i) x.v[i] = rounded_to<T>(a.v[i]);
  return x;
}

template <class V>
Mask above(const Values<V>& a, const Values<V>& b) {
  Mask m;
  for (int i = 0; i < kLanes; ++i) m.lane[i] = a.v[i] > b.v[i] ? -1 : 0;
  return m;
}
template <class V>
Mask equal(const Values<V>& a, const Values<V>& b) {
  Mask m;
  for (int i = 0; i < kLanes; ++i) m.lane[i] = exact::are_equal(a.v[i], b.v[i]) ? -1 : 0;
  return m;
}
template <class T>
Mask first_lanes(int count) {
  Mask m;
  for (int i = 0; i < kLanes; ++i) m.lane[i] = i < count ? -1 : 0;
  return m;
}
inline Mask both(const Mask& a, const Mask& b) {
  Mask m;
  for (int i = 0; i < kLanes; ++i) m.lane[i] = a.lane[i] & b.lane[i];
  return m;
}
inline Mask either(const Mask& a, const Mask& b) {
  Mask m;
  for (int i = 0; i < kLanes; ++i) m.lane[i] = a.lane[i] | b.lane[i];
  return m;
}
inline Mask without(const Mask& a, const Mask& b) {
  Mask m;
  for (int i = 0; i < kLanes; ++i) m.lane[i] = a.lane[i] & ~b.lane[i];
  return m;
}
inline int count(const Mask& m) {
  int32_t n = 0;
  for (int i = 0; i < kLanes; ++i) n -= m.lane[i];
  return n;
}

/// By the bits: compilers vectorize that, but turn a condition into sixteen branches.
template <class V>
Values<V> choose(const Mask& m, const Values<V>& yes, const Values<V>& no) {
  using Bits = std::conditional_t<sizeof(V) == 4, uint32_t, uint64_t>;
  Bits a[kLanes], b[kLanes];
  std::memcpy(a, yes.v, sizeof(a));
  std::memcpy(b, no.v, sizeof(b));
  for (int i = 0; i < kLanes; ++i) {
    const auto chosen = static_cast<Bits>(static_cast<std::make_signed_t<Bits>>(m.lane[i]));
    a[i] = (a[i] & chosen) | (b[i] & ~chosen);
  }
  Values<V> x;
  std::memcpy(x.v, a, sizeof(a));
  return x;
}

/// Writes the selected lanes in sequence, up to kLanes numbers in all; returns how many were selected.
template <class V>
int compress(V* to, const Values<V>& x, const Mask& m) {
  if (count(m) == 0) return 0;
  int n = 0;
  for (int i = 0; i < kLanes; ++i) {
    to[n] = x.v[i];
    n -= m.lane[i];
  }
  return n;
}

/// The selected numbers of kPacks packs, which are in memory too.
template <class T>
class Block {
 public:
  void take(int pack, const Pack<T>& x, const Mask& m) {
    x_[pack] = x;
    mask_[pack] = m;
  }
  int write(Number<T>* to, const Number<T>* /*memory*/) const {
    int n = 0;
    for (int k = 0; k < kPacks; ++k) n += compress(to + n, x_[k], mask_[k]);
    return n;
  }

 private:
  Pack<T> x_[kPacks];
  Mask mask_[kPacks];
};

}  // namespace kernels::cpu::portable
STEPPE_NAMESPACE_END

#if defined(__GNUC__) || defined(__clang__)
STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// The numbers of the set bits one by one: the first eight without a branch, which is enough where few are set.
template <class N>
int pick(N* to, const N* from, uint64_t chosen, int count) {
  constexpr uint64_t kEnd = uint64_t{1} << 63;
  for (int i = 0; i < 8; ++i, chosen &= chosen - 1) to[i] = from[__builtin_ctzll(chosen | kEnd)];
  for (int i = 8; i < count; ++i, chosen &= chosen - 1) to[i] = from[__builtin_ctzll(chosen)];
  return count;
}

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
#endif

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu::portable {

template <class V>
Values<double> widened(const Values<V>& x) {
  Values<double> wide;
  for (int i = 0; i < kLanes; ++i) wide.v[i] = static_cast<double>(x.v[i]);
  return wide;
}

template <class T>
Values<double> widened(const T* from) {
  return widened(load(from));
}

/// Sixteen sums in double, one a lane.
class LaneSums {
 public:
  void add(const Values<double>& x) {
    for (int i = 0; i < kLanes; ++i) v_[i] += x.v[i];
  }
  void add_squares(const Values<double>& x) { add_products(x, x); }
  /// Rounded separately, as in times(); only products of float64 are not exact.
  void add_products(const Values<double>& x, const Values<double>& y) {
#ifdef STEPPE_REGISTER
    using Register __attribute__((vector_size(STEPPE_REGISTER_BYTES))) = double;
    const auto load = [](const double* from) {
      Register some;
      std::memcpy(&some, from, sizeof(some));
      return some;
    };
    for (int i = 0; i < kLanes; i += static_cast<int>(sizeof(Register) / sizeof(double))) {
      Register product = load(x.v + i) * load(y.v + i);
      __asm__("" : "+" STEPPE_REGISTER(product));
      product += load(v_ + i);
      std::memcpy(v_ + i, &product, sizeof(product));
    }
#elif defined(__x86_64__)
    for (int i = 0; i < kLanes; ++i) v_[i] += x.v[i] * y.v[i];
#else
    add(times(x, y));
#endif
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
using Sums = LaneSums;

}  // namespace kernels::cpu::portable
STEPPE_NAMESPACE_END
