// Sixteen floats at a time in four NEON registers, which every aarch64 processor has.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <type_traits>

#include <steppe/kernels/cpu/simd/portable.hpp>
#include <steppe/kernels/formats.hpp>
#include <steppe/version.hpp>

// Both names are those of g++ and clang.
#if defined(__AARCH64EL__) && defined(__ARM_NEON)
#include <arm_neon.h>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu::neon {

constexpr int kLanes = 16;
template <class T>
constexpr bool kRarelyUsed = false;
/// Stores are plain: STNP is only a hint, and was not measured.
constexpr bool kStreamsWithSums = false;

// Four names instead of an array: g++ leaves an array that a loop goes over in memory.
struct Floats {
  float32x4_t a, b, c, d;
};
/// All bits of a selected lane are set.
struct Mask {
  uint32x4_t a, b, c, d;
};
template <class T>
using Pack = Floats;
template <class T>
using MaskOf = Mask;

template <class T>
inline Mask first_lanes(int count) {
  static constexpr int32_t kLane[] = {0, 1, 2, 3};
  const int32x4_t lane = vld1q_s32(kLane);
  return {vcgtq_s32(vdupq_n_s32(count), lane), vcgtq_s32(vdupq_n_s32(count - 4), lane),
          vcgtq_s32(vdupq_n_s32(count - 8), lane), vcgtq_s32(vdupq_n_s32(count - 12), lane)};
}

inline Floats load(const float* from) {
  return {vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)};
}
inline void store(float* to, Floats x) {
  vst1q_f32(to, x.a);
  vst1q_f32(to + 4, x.b);
  vst1q_f32(to + 8, x.c);
  vst1q_f32(to + 12, x.d);
}

/// Sixteen 16-bit numbers.
struct Words {
  uint16x8_t low, high;
};
inline Words words_at(const void* from) {
  const auto* const words = static_cast<const uint16_t*>(from);
  return {vld1q_u16(words), vld1q_u16(words + 8)};
}
inline void put_words(void* to, Words x) {
  auto* const words = static_cast<uint16_t*>(to);
  vst1q_u16(words, x.low);
  vst1q_u16(words + 8, x.high);
}

inline float32x4_t from_bf16(uint16x4_t x) { return vreinterpretq_f32_u32(vshll_n_u16(x, 16)); }
inline Floats from_bf16(Words x) {
  return {from_bf16(vget_low_u16(x.low)), from_bf16(vget_high_u16(x.low)), from_bf16(vget_low_u16(x.high)),
          from_bf16(vget_high_u16(x.high))};
}
/// Slightly less than half of the last place that is kept, or half of it if that is odd.
inline uint32x4_t half_place(uint32x4_t bits) {
  return vsubq_u32(vdupq_n_u32(0x7fff), vtstq_u32(bits, vdupq_n_u32(0x10000)));
}
inline uint16x8_t nearest_bf16(float32x4_t low, float32x4_t high) {
  const uint32x4_t a = vreinterpretq_u32_f32(low), b = vreinterpretq_u32_f32(high);
  return vaddhn_high_u32(vaddhn_u32(a, half_place(a)), b, half_place(b));
}
inline bool has_nan(Floats x) {
  return __builtin_isnan(vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.b), vmaxq_f32(x.c, x.d))));
}
/// NaN truncated and quiet, so that rounding does not carry into its exponent.
inline float32x4_t with_short_nan(float32x4_t x) {
  const uint32x4_t quiet = vorrq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x400000));
  const uint32x4_t upper = vandq_u32(quiet, vdupq_n_u32(0xffff0000));
  return vbslq_f32(vceqq_f32(x, x), x, vreinterpretq_f32_u32(upper));
}
inline Words to_bf16(Floats x) {
  if (has_nan(x)) x = {with_short_nan(x.a), with_short_nan(x.b), with_short_nan(x.c), with_short_nan(x.d)};
  return {nearest_bf16(x.a, x.b), nearest_bf16(x.c, x.d)};
}
inline Floats load(const BFloat16* from) { return from_bf16(words_at(from)); }
inline void store(BFloat16* to, Floats x) { put_words(to, to_bf16(x)); }

inline Floats from_half(Words x) {
  const float16x8_t low = vreinterpretq_f16_u16(x.low), high = vreinterpretq_f16_u16(x.high);
  return {vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low), vcvt_f32_f16(vget_low_f16(high)),
          vcvt_high_f32_f16(high)};
}
inline Words to_half(Floats x) {
  return {vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b)),
          vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d))};
}
inline Floats load(const Half* from) { return from_half(words_at(from)); }
inline void store(Half* to, Floats x) { put_words(to, to_half(x)); }

template <class T>
inline Floats load(const T* from, int count) {
  T part[kLanes] = {};
  for (int i = 0; i < count; ++i) part[i] = from[i];
  return load(static_cast<const T*>(part));
}
template <class T>
inline void store(T* to, Floats x, int count) {
  T part[kLanes];
  store(static_cast<T*>(part), x);
  for (int i = 0; i < count; ++i) to[i] = part[i];
}
template <class T>
inline void stream(T* to, Floats x) {
  store(to, x);
}
inline void fence() {}

template <class T>
inline Floats all(float value) {
  const float32x4_t v = vdupq_n_f32(value);
  return {v, v, v, v};
}
inline Floats plus(Floats x, Floats y) {
  return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}
inline Floats minus(Floats x, Floats y) {
  return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
}
/// Rounded separately: the compiler must not fuse it with an addition that follows.
inline Floats times(Floats x, Floats y) {
  Floats product{vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
  __asm__("" : "+w"(product.a), "+w"(product.b), "+w"(product.c), "+w"(product.d));
  return product;
}
inline Floats over(Floats x, Floats y) {
  return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}
inline Floats root(Floats x) { return {vsqrtq_f32(x.a), vsqrtq_f32(x.b), vsqrtq_f32(x.c), vsqrtq_f32(x.d)}; }
inline Floats absolute(Floats x) { return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)}; }
template <class T>
inline Floats rounded(Floats x) {
  if constexpr (std::is_same_v<T, BFloat16>) return from_bf16(to_bf16(x));
  if constexpr (std::is_same_v<T, Half>) return from_half(to_half(x));
  return x;
}

inline Mask above(Floats x, Floats y) {
  return {vcgtq_f32(x.a, y.a), vcgtq_f32(x.b, y.b), vcgtq_f32(x.c, y.c), vcgtq_f32(x.d, y.d)};
}
inline Mask equal(Floats x, Floats y) {
  return {vceqq_f32(x.a, y.a), vceqq_f32(x.b, y.b), vceqq_f32(x.c, y.c), vceqq_f32(x.d, y.d)};
}
inline Mask both(Mask x, Mask y) {
  return {vandq_u32(x.a, y.a), vandq_u32(x.b, y.b), vandq_u32(x.c, y.c), vandq_u32(x.d, y.d)};
}
inline Mask either(Mask x, Mask y) {
  return {vorrq_u32(x.a, y.a), vorrq_u32(x.b, y.b), vorrq_u32(x.c, y.c), vorrq_u32(x.d, y.d)};
}
inline Mask without(Mask x, Mask y) {
  return {vbicq_u32(x.a, y.a), vbicq_u32(x.b, y.b), vbicq_u32(x.c, y.c), vbicq_u32(x.d, y.d)};
}
/// A selected lane is -1.
inline int count(Mask m) { return -static_cast<int>(vaddvq_u32(vaddq_u32(vaddq_u32(m.a, m.b), vaddq_u32(m.c, m.d)))); }
inline Floats choose(Mask m, Floats yes, Floats no) {
  return {vbslq_f32(m.a, yes.a, no.a), vbslq_f32(m.b, yes.b, no.b), vbslq_f32(m.c, yes.c, no.c),
          vbslq_f32(m.d, yes.d, no.d)};
}

/// A byte per lane: if it is selected, its own bit among those of eight lanes.
inline uint8x16_t lane_bits(Mask m) {
  static constexpr uint8_t kBits[] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t low = vmovn_high_u32(vmovn_u32(m.a), m.b), high = vmovn_high_u32(vmovn_u32(m.c), m.d);
  return vandq_u8(vmovn_high_u16(vmovn_u16(low), high), vld1q_u8(kBits));
}

/// For every selection of four lanes, the bytes of those lanes, first to last, and how many lanes they are.
struct CompressTable {
  alignas(16) uint8_t bytes[16][16];
  uint8_t count[16];
};
constexpr CompressTable make_compress_table() {
  CompressTable table{};
  for (unsigned mask = 0; mask < 16; ++mask)
    for (unsigned lane = 0; lane < 4; ++lane) {
      if ((mask >> lane & 1u) == 0) continue;
      const unsigned at = 4u * table.count[mask]++;
      for (unsigned byte = 0; byte < 4; ++byte) table.bytes[mask][at + byte] = static_cast<uint8_t>(4 * lane + byte);
    }
  return table;
}
inline constexpr CompressTable kCompressTable = make_compress_table();

/// The lanes that `four` selects, in sequence; returns how many there are.
inline int compress_four(float* to, float32x4_t x, unsigned four) {
  const uint8x16_t lanes = vqtbl1q_u8(vreinterpretq_u8_f32(x), vld1q_u8(kCompressTable.bytes[four]));
  vst1q_f32(to, vreinterpretq_f32_u8(lanes));
  return kCompressTable.count[four];
}
inline int compress(float* to, Floats x, Mask m) {
  // Neighbours added three times over: the sixteen bits are in the lowest two bytes.
  uint8x16_t sums = lane_bits(m);
  sums = vpaddq_u8(sums, sums);
  sums = vpaddq_u8(sums, sums);
  sums = vpaddq_u8(sums, sums);
  const unsigned chosen = vgetq_lane_u16(vreinterpretq_u16_u8(sums), 0);
  int n = compress_four(to, x.a, chosen & 15u);
  n += compress_four(to + n, x.b, chosen >> 4 & 15u);
  n += compress_four(to + n, x.c, chosen >> 8 & 15u);
  return n + compress_four(to + n, x.d, chosen >> 12);
}

template <class T>
class Block {
 public:
  void take(int pack, const Floats& /*x*/, const Mask& m) { bits_[pack] = lane_bits(m); }
  int write(float* to, const float* memory) const {
    const uint8x16_t low = vpaddq_u8(bits_[0], bits_[1]), high = vpaddq_u8(bits_[2], bits_[3]);
    const uint8x16_t quarters = vpaddq_u8(low, high);
    const uint64_t chosen = vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(quarters, quarters)), 0);
    return pick(to, memory, chosen, __builtin_popcountll(chosen));
  }

 private:
  uint8x16_t bits_[kPacks];
};

/// The numbers of one register in double.
struct Wide {
  float64x2_t low, high;
};
inline Wide widened(float32x4_t x) { return {vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x)}; }
inline Wide plus(Wide x, Wide y) { return {vaddq_f64(x.low, y.low), vaddq_f64(x.high, y.high)}; }
inline Wide plus_product(Wide sum, Wide x, Wide y) {
  return {vfmaq_f64(sum.low, x.low, y.low), vfmaq_f64(sum.high, x.high, y.high)};
}

struct Doubles {
  Wide a, b, c, d;
};
inline Doubles widened(Floats x) { return {widened(x.a), widened(x.b), widened(x.c), widened(x.d)}; }
template <class T>
inline Doubles widened(const T* from) {
  return widened(load(from));
}

class LaneSums {
 public:
  LaneSums() {
    const float64x2_t zero = vdupq_n_f64(0.0);
    sums_ = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}};
  }

  void add(const Doubles& x) {
    sums_ = {plus(sums_.a, x.a), plus(sums_.b, x.b), plus(sums_.c, x.c), plus(sums_.d, x.d)};
  }
  /// The square of a float is exact in double, fused or not.
  void add_squares(const Doubles& x) { add_products(x, x); }
  /// Exact, as a square is.
  void add_products(const Doubles& x, const Doubles& y) {
    sums_ = {plus_product(sums_.a, x.a, y.a), plus_product(sums_.b, x.b, y.b), plus_product(sums_.c, x.c, y.c),
             plus_product(sums_.d, x.d, y.d)};
  }
  /// In the order of portable::LaneSums.
  double total() const {
    const Wide four = plus(plus(sums_.a, sums_.c), plus(sums_.b, sums_.d));
    return vaddvq_f64(vaddq_f64(four.low, four.high));
  }

 private:
  Doubles sums_;
};

template <class T>
using Sums = LaneSums;

}  // namespace kernels::cpu::neon
STEPPE_NAMESPACE_END
#endif
