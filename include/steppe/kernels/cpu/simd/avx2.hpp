// Sixteen numbers at a time in AVX2 registers: two of floats, four of doubles.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <type_traits>

#include <steppe/kernels/cpu/simd/portable.hpp>
#include <steppe/kernels/cpu/simd/target.hpp>
#include <steppe/kernels/formats.hpp>
#include <steppe/version.hpp>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu::avx2 {

/// For every selection of eight lanes, the selected lanes, first to last; for one of four doubles, their halves.
struct CompressTable {
  alignas(32) uint32_t lanes[256][8];
  alignas(32) uint32_t halves_of_doubles[16][8];
};
constexpr CompressTable make_compress_table() {
  CompressTable table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    unsigned n = 0;
    for (unsigned lane = 0; lane < 8; ++lane)
      if ((mask >> lane & 1u) != 0) table.lanes[mask][n++] = lane;
  }
  for (unsigned mask = 0; mask < 16; ++mask) {
    unsigned n = 0;
    for (unsigned half = 0; half < 8; ++half)
      if ((mask >> half / 2 & 1u) != 0) table.halves_of_doubles[mask][n++] = half;
  }
  return table;
}
inline constexpr CompressTable kCompressTable = make_compress_table();

}  // namespace kernels::cpu::avx2
STEPPE_NAMESPACE_END

STEPPE_TARGET_BEGIN(STEPPE_AVX2)
STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu::avx2 {

constexpr int kLanes = 16;
template <class T>
constexpr bool kRarelyUsed = false;
constexpr bool kStreamsWithSums = true;

struct Floats {
  __m256 a, b;
};
struct Doubles {
  __m256d v[4];
};
template <class T>
using Pack = std::conditional_t<std::is_same_v<T, double>, Doubles, Floats>;

/// All bits of a selected lane are set.
struct Mask {
  __m256 a, b;
};
struct MaskOfDoubles {
  __m256d v[4];
};
template <class T>
using MaskOf = std::conditional_t<std::is_same_v<T, double>, MaskOfDoubles, Mask>;

inline __m256i lanes_below(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i doubles_below(int count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
template <class T>
inline MaskOf<T> first_lanes(int count) {
  if constexpr (std::is_same_v<T, double>) {
    MaskOfDoubles m;
    for (int i = 0; i < 4; ++i) m.v[i] = _mm256_castsi256_pd(doubles_below(count - 4 * i));
    return m;
  } else {
    return {_mm256_castsi256_ps(lanes_below(count)), _mm256_castsi256_ps(lanes_below(count - 8))};
  }
}

inline Floats load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline Floats load(const float* from, int count) {
  return {_mm256_maskload_ps(from, lanes_below(count)), _mm256_maskload_ps(from + 8, lanes_below(count - 8))};
}
inline void store(float* to, Floats x) {
  _mm256_storeu_ps(to, x.a);
  _mm256_storeu_ps(to + 8, x.b);
}
inline void store(float* to, Floats x, int count) {
  _mm256_maskstore_ps(to, lanes_below(count), x.a);
  _mm256_maskstore_ps(to + 8, lanes_below(count - 8), x.b);
}
/// Non-temporal; `to` must be aligned to 32 bytes.
inline void stream(float* to, Floats x) {
  _mm256_stream_ps(to, x.a);
  _mm256_stream_ps(to + 8, x.b);
}
inline void fence() { _mm_sfence(); }

inline Doubles load(const double* from) {
  return {{_mm256_loadu_pd(from), _mm256_loadu_pd(from + 4), _mm256_loadu_pd(from + 8), _mm256_loadu_pd(from + 12)}};
}
inline Doubles load(const double* from, int count) {
  Doubles x;
  for (int i = 0; i < 4; ++i) x.v[i] = _mm256_maskload_pd(from + 4 * i, doubles_below(count - 4 * i));
  return x;
}
inline void store(double* to, const Doubles& x) {
  for (int i = 0; i < 4; ++i) _mm256_storeu_pd(to + 4 * i, x.v[i]);
}
inline void store(double* to, const Doubles& x, int count) {
  for (int i = 0; i < 4; ++i) _mm256_maskstore_pd(to + 4 * i, doubles_below(count - 4 * i), x.v[i]);
}
/// Non-temporal; `to` must be aligned to 32 bytes.
inline void stream(double* to, const Doubles& x) {
  for (int i = 0; i < 4; ++i) _mm256_stream_pd(to + 4 * i, x.v[i]);
}

inline __m128i bits_at(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
inline void put_bits(void* to, __m128i bits) { _mm_storeu_si128(static_cast<__m128i*>(to), bits); }

inline __m256 from_bf16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline __m256i nearest_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
}
inline __m256i quiet_where_nan(__m256i nearest, __m256 x) {
  const __m256i quiet = _mm256_or_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x400000));
  return _mm256_blendv_epi8(nearest, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
/// The upper words of all lanes.
inline __m256i to_bf16(Floats x) {
  __m256i a = nearest_bf16(x.a), b = nearest_bf16(x.b);
  if (_mm256_movemask_ps(_mm256_cmp_ps(x.a, x.b, _CMP_UNORD_Q)) != 0) {
    a = quiet_where_nan(a, x.a);
    b = quiet_where_nan(b, x.b);
  }
  const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
  return _mm256_permute4x64_epi64(packed, 0xd8);
}
inline Floats load(const BFloat16* from) { return {from_bf16(bits_at(from)), from_bf16(bits_at(from + 8))}; }
inline void store(BFloat16* to, Floats x) {
  _mm256_storeu_si256(static_cast<__m256i*>(static_cast<void*>(to)), to_bf16(x));
}
inline Floats load(const Half* from) { return {_mm256_cvtph_ps(bits_at(from)), _mm256_cvtph_ps(bits_at(from + 8))}; }
inline __m128i to_half(__m256 x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline void store(Half* to, Floats x) {
  put_bits(to, to_half(x.a));
  put_bits(to + 8, to_half(x.b));
}
template <class T>
inline Floats load(const T* from, int count) {
  T part[kLanes] = {};
  for (int i = 0; i < count; ++i) part[i] = from[i];
  return load(part);
}
template <class T>
inline void store(T* to, Floats x, int count) {
  T part[kLanes];
  store(part, x);
  for (int i = 0; i < count; ++i) to[i] = part[i];
}
template <class T>
inline void stream(T* to, Floats x) {
  store(to, x);
}

template <class T>
inline Pack<T> all(Number<T> value) {
  if constexpr (std::is_same_v<T, double>) {
    const __m256d v = _mm256_set1_pd(value);
    return {{v, v, v, v}};
  } else {
    return {_mm256_set1_ps(value), _mm256_set1_ps(value)};
  }
}
inline Floats plus(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Floats minus(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
/// Rounded separately: the compiler must not fuse it with an addition that follows.
inline Floats times(Floats x, Floats y) {
  __m256 a = _mm256_mul_ps(x.a, y.a), b = _mm256_mul_ps(x.b, y.b);
  __asm__("" : "+x"(a), "+x"(b));
  return {a, b};
}
inline Floats over(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline Floats root(Floats x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
inline __m256 absolute(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
inline Floats absolute(Floats x) { return {absolute(x.a), absolute(x.b)}; }
inline Doubles plus(Doubles x, const Doubles& y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm256_add_pd(x.v[i], y.v[i]);
  return x;
}
inline Doubles minus(Doubles x, const Doubles& y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm256_sub_pd(x.v[i], y.v[i]);
  return x;
}
inline Doubles times(Doubles x, const Doubles& y) {
  for (int i = 0; i < 4; ++i) {
    x.v[i] = _mm256_mul_pd(x.v[i], y.v[i]);
    __asm__("" : "+x"(x.v[i]));
  }
  return x;
}
inline Doubles absolute(Doubles x) {
  for (__m256d& v : x.v) v = _mm256_andnot_pd(_mm256_set1_pd(-0.0), v);
  return x;
}

template <class T>
inline Pack<T> rounded(Pack<T> x) {
  if constexpr (sizeof(T) >= sizeof(float)) return x;
  if constexpr (std::is_same_v<T, BFloat16>) {
    const __m256i bits = to_bf16(x);
    return {from_bf16(_mm256_castsi256_si128(bits)), from_bf16(_mm256_extracti128_si256(bits, 1))};
  }
  if constexpr (std::is_same_v<T, Half>) return {_mm256_cvtph_ps(to_half(x.a)), _mm256_cvtph_ps(to_half(x.b))};
}

inline Mask above(Floats x, Floats y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)};
}
inline Mask equal(Floats x, Floats y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)};
}
inline Mask both(Mask x, Mask y) { return {_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b)}; }
inline Mask either(Mask x, Mask y) { return {_mm256_or_ps(x.a, y.a), _mm256_or_ps(x.b, y.b)}; }
inline Mask without(Mask x, Mask y) { return {_mm256_andnot_ps(y.a, x.a), _mm256_andnot_ps(y.b, x.b)}; }
inline unsigned bits(__m256 lanes) { return static_cast<unsigned>(_mm256_movemask_ps(lanes)); }
inline unsigned bits(Mask m) { return bits(m.a) | bits(m.b) << 8; }
inline int count(Mask m) { return _mm_popcnt_u32(bits(m)); }
inline Floats choose(Mask m, Floats yes, Floats no) {
  return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}

inline MaskOfDoubles above(const Doubles& x, const Doubles& y) {
  MaskOfDoubles m;
  for (int i = 0; i < 4; ++i) m.v[i] = _mm256_cmp_pd(x.v[i], y.v[i], _CMP_GT_OQ);
  return m;
}
inline MaskOfDoubles equal(const Doubles& x, const Doubles& y) {
  MaskOfDoubles m;
  for (int i = 0; i < 4; ++i) m.v[i] = _mm256_cmp_pd(x.v[i], y.v[i], _CMP_EQ_OQ);
  return m;
}
inline MaskOfDoubles both(MaskOfDoubles x, const MaskOfDoubles& y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm256_and_pd(x.v[i], y.v[i]);
  return x;
}
inline MaskOfDoubles either(MaskOfDoubles x, const MaskOfDoubles& y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm256_or_pd(x.v[i], y.v[i]);
  return x;
}
inline MaskOfDoubles without(MaskOfDoubles x, const MaskOfDoubles& y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm256_andnot_pd(y.v[i], x.v[i]);
  return x;
}
inline unsigned bits(__m256d lanes) { return static_cast<unsigned>(_mm256_movemask_pd(lanes)); }
inline unsigned bits(const MaskOfDoubles& m) {
  return bits(m.v[0]) | bits(m.v[1]) << 4 | bits(m.v[2]) << 8 | bits(m.v[3]) << 12;
}
inline int count(const MaskOfDoubles& m) { return _mm_popcnt_u32(bits(m)); }
inline Doubles choose(const MaskOfDoubles& m, const Doubles& yes, Doubles no) {
  for (int i = 0; i < 4; ++i) no.v[i] = _mm256_blendv_pd(no.v[i], yes.v[i], m.v[i]);
  return no;
}

inline int compress_half(float* to, __m256 x, unsigned chosen) {
  const __m256i lanes = _mm256_load_si256(reinterpret_cast<const __m256i*>(kCompressTable.lanes[chosen]));
  _mm256_storeu_ps(to, _mm256_permutevar8x32_ps(x, lanes));
  return _mm_popcnt_u32(chosen);
}
inline int compress(float* to, Floats x, Mask m) {
  const int n = compress_half(to, x.a, bits(m.a));
  return n + compress_half(to + n, x.b, bits(m.b));
}

inline int compress(double* to, const Doubles& x, const MaskOfDoubles& m) {
  int n = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned chosen = bits(m.v[i]);
    const auto* const halves = reinterpret_cast<const __m256i*>(kCompressTable.halves_of_doubles[chosen]);
    const __m256i some = _mm256_permutevar8x32_epi32(_mm256_castpd_si256(x.v[i]), _mm256_load_si256(halves));
    _mm256_storeu_pd(to + n, _mm256_castsi256_pd(some));
    n += _mm_popcnt_u32(chosen);
  }
  return n;
}

template <class T>
class Block {
 public:
  void take(int pack, const Pack<T>& /*x*/, const MaskOf<T>& m) {
    chosen_ |= static_cast<uint64_t>(bits(m)) << (kLanes * pack);
  }
  int write(Number<T>* to, const Number<T>* memory) const {
    return pick(to, memory, chosen_, static_cast<int>(_mm_popcnt_u64(chosen_)));
  }

 private:
  uint64_t chosen_ = 0;
};

inline Doubles widened(Floats x) {
  return {{_mm256_cvtps_pd(_mm256_castps256_ps128(x.a)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)),
           _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1))}};
}

inline Doubles widened(const float* from) {
  return {{_mm256_cvtps_pd(_mm_loadu_ps(from)), _mm256_cvtps_pd(_mm_loadu_ps(from + 4)),
           _mm256_cvtps_pd(_mm_loadu_ps(from + 8)), _mm256_cvtps_pd(_mm_loadu_ps(from + 12))}};
}
inline Doubles widened(const Doubles& x) { return x; }
template <class T>
inline Doubles widened(const T* from) {
  return widened(load(from));
}

class LaneSums {
 public:
  LaneSums() {
    for (__m256d& v : v_) v = _mm256_setzero_pd();
  }

  void add(const Doubles& x) {
    for (int i = 0; i < 4; ++i) v_[i] = _mm256_add_pd(v_[i], x.v[i]);
  }
  /// The square of a float is exact in double, fused or not.
  void add_squares(const Doubles& x) {
    for (int i = 0; i < 4; ++i) v_[i] = _mm256_fmadd_pd(x.v[i], x.v[i], v_[i]);
  }
  /// Exact, as a square is.
  void add_products(const Doubles& x, const Doubles& y) {
    for (int i = 0; i < 4; ++i) v_[i] = _mm256_fmadd_pd(x.v[i], y.v[i], v_[i]);
  }
  double total() const {
    double v[kLanes];
    for (int i = 0; i < 4; ++i) _mm256_storeu_pd(v + 4 * i, v_[i]);
    return portable::LaneSums::in_order(v);
  }

 private:
  __m256d v_[4];
};

/// Of doubles, whose products are not exact: rounded before they are added.
class SumsOfDoubles : private LaneSums {
 public:
  using LaneSums::add;
  using LaneSums::total;

  void add_squares(const Doubles& x) { add(times(x, x)); }
  void add_products(const Doubles& x, const Doubles& y) { add(times(x, y)); }
};

template <class T>
using Sums = std::conditional_t<std::is_same_v<T, double>, SumsOfDoubles, LaneSums>;

}  // namespace kernels::cpu::avx2
STEPPE_NAMESPACE_END
STEPPE_TARGET_END
#endif
