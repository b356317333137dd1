// Sixteen floats at a time in AVX-512 registers.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <type_traits>

#include <steppe/kernels/cpu/simd/portable.hpp>
#include <steppe/kernels/cpu/simd/target.hpp>
#include <steppe/version.hpp>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>

STEPPE_TARGET_BEGIN(STEPPE_AVX512)
STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu::avx512 {

constexpr int kLanes = 16;
template <class T>
constexpr bool kRarelyUsed = false;
constexpr bool kStreamsWithSums = true;

struct Floats {
  __m512 v;
};
struct Mask {
  __mmask16 bits;
};
template <class T>
using Pack = Floats;
template <class T>
using MaskOf = Mask;

template <class T>
inline Mask first_lanes(int count) {
  return {static_cast<__mmask16>((1u << count) - 1u)};
}

inline Floats load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline Floats load(const float* from, int count) {
  return {_mm512_maskz_loadu_ps(first_lanes<float>(count).bits, from)};
}
inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x.v); }
inline void store(float* to, Floats x, int count) { _mm512_mask_storeu_ps(to, first_lanes<float>(count).bits, x.v); }
/// Non-temporal; `to` must be aligned to 64 bytes.
inline void stream(float* to, Floats x) { _mm512_stream_ps(to, x.v); }
inline void fence() { _mm_sfence(); }

inline Floats from_bf16(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, bits), 16))};
}
/// Adds slightly less than half of the last place that is kept, or half of it if that is odd, and takes the upper
/// words.
inline __m256i to_bf16(Floats x) {
  const __m512i bits = _mm512_castps_si512(x.v);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  const __m512i even = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  const __m512i nearest = _mm512_mask_add_epi32(even, odd, bits, _mm512_set1_epi32(0x8000));
  const __mmask16 nan = _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_mask_or_epi32(nearest, nan, bits, _mm512_set1_epi32(0x400000));
  const __m512i upper = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0x1f001d, 0x1b0019, 0x170015, 0x130011, 0xf000d,
                                         0xb0009, 0x70005, 0x30001);
  return _mm512_maskz_extracti32x8_epi32(0xff, _mm512_maskz_permutexvar_epi16(0xffffffffu, upper, chosen), 0);
}
inline Floats from_half(__m256i bits) { return {_mm512_maskz_cvtph_ps(0xffff, bits)}; }
inline __m256i to_half(Floats x) {
  return _mm512_maskz_cvtps_ph(0xffff, x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

inline __m256i bits_at(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline __m256i bits_at(const void* from, int count) {
  return _mm256_maskz_loadu_epi16(first_lanes<float>(count).bits, from);
}

inline Floats load(const BFloat16* from) { return from_bf16(bits_at(from)); }
inline Floats load(const BFloat16* from, int count) { return from_bf16(bits_at(from, count)); }
inline void store(BFloat16* to, Floats x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bf16(x)); }
inline void store(BFloat16* to, Floats x, int count) {
  _mm256_mask_storeu_epi16(to, first_lanes<float>(count).bits, to_bf16(x));
}
inline Floats load(const Half* from) { return from_half(bits_at(from)); }
inline Floats load(const Half* from, int count) { return from_half(bits_at(from, count)); }
inline void store(Half* to, Floats x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_half(x)); }
inline void store(Half* to, Floats x, int count) {
  _mm256_mask_storeu_epi16(to, first_lanes<float>(count).bits, to_half(x));
}
template <class T>
inline void stream(T* to, Floats x) {
  store(to, x);
}

template <class T>
inline Floats all(float value) {
  return {_mm512_set1_ps(value)};
}
inline Floats plus(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats minus(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
/// Rounded separately: the compiler must not fuse it with an addition that follows.
inline Floats times(Floats a, Floats b) {
  __m512 product = _mm512_mul_ps(a.v, b.v);
  __asm__("" : "+v"(product));
  return {product};
}
inline Floats over(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats root(Floats a) { return {_mm512_maskz_sqrt_ps(0xffff, a.v)}; }
inline Floats absolute(Floats a) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff)))};
}
template <class T>
inline Floats rounded(Floats x) {
  if constexpr (sizeof(T) == 4) return x;
  if constexpr (std::is_same_v<T, BFloat16>) return from_bf16(to_bf16(x));
  if constexpr (std::is_same_v<T, Half>) return from_half(to_half(x));
}

inline Mask above(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
inline Mask equal(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask both(Mask a, Mask b) { return {static_cast<__mmask16>(a.bits & b.bits)}; }
inline Mask either(Mask a, Mask b) { return {static_cast<__mmask16>(a.bits | b.bits)}; }
inline Mask without(Mask a, Mask b) { return {static_cast<__mmask16>(a.bits & ~b.bits)}; }
inline int count(Mask m) { return _mm_popcnt_u32(m.bits); }
inline Floats choose(Mask m, Floats yes, Floats no) { return {_mm512_mask_blend_ps(m.bits, no.v, yes.v)}; }
/// Compressed in the register: compressing stores are slow on some processors.
inline int compress(float* to, Floats x, Mask m) {
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(m.bits, x.v));
  return count(m);
}

template <class T>
class Block {
 public:
  void take(int pack, Floats x, Mask m) {
    x_[pack] = x;
    mask_[pack] = m;
  }
  int write(float* to, const float* /*memory*/) const {
    int n = 0;
    for (int k = 0; k < kPacks; ++k) n += compress(to + n, x_[k], mask_[k]);
    return n;
  }

 private:
  Floats x_[kPacks];
  Mask mask_[kPacks];
};

struct Doubles {
  __m512d low, high;
};
inline Doubles widened(Floats x) {
  return {_mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, x.v, 0)),
          _mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, x.v, 1))};
}

inline Doubles widened(const float* from) {
  return {_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(from)), _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(from + 8))};
}
template <class T>
inline Doubles widened(const T* from) {
  return widened(load(from));
}

class LaneSums {
 public:
  LaneSums() : low_(_mm512_setzero_pd()), high_(_mm512_setzero_pd()) {}

  void add(Doubles x) {
    low_ = _mm512_add_pd(low_, x.low);
    high_ = _mm512_add_pd(high_, x.high);
  }
  /// The square of a float is exact in double, fused or not.
  void add_squares(Doubles x) {
    low_ = _mm512_fmadd_pd(x.low, x.low, low_);
    high_ = _mm512_fmadd_pd(x.high, x.high, high_);
  }
  /// Exact, as a square is.
  void add_products(Doubles x, Doubles y) {
    low_ = _mm512_fmadd_pd(x.low, y.low, low_);
    high_ = _mm512_fmadd_pd(x.high, y.high, high_);
  }
  double total() const {
    double v[kLanes];
    _mm512_storeu_pd(v, low_);
    _mm512_storeu_pd(v + 8, high_);
    return portable::LaneSums::in_order(v);
  }

 private:
  __m512d low_, high_;
};

template <class T>
using Sums = LaneSums;

}  // namespace kernels::cpu::avx512
STEPPE_NAMESPACE_END
STEPPE_TARGET_END
#endif
