// Sixteen floats at a time in four SSE2 registers, which every x86-64 processor has. Only float32 gains from it.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/cpu/simd/portable.hpp>
#include <steppe/version.hpp>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <emmintrin.h>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu::sse2 {

constexpr int kLanes = 16;
template <class T>
constexpr bool kRarelyUsed = false;
/// Measured on Zen 4: streaming four times 16 bytes between sums takes twice as long as storing them.
constexpr bool kStreamsWithSums = false;

struct Floats {
  __m128 v[4];
};
/// All bits of a selected lane are set.
struct Mask {
  __m128 v[4];
};
template <class T>
using Pack = Floats;
template <class T>
using MaskOf = Mask;

template <class T>
inline Mask first_lanes(int count) {
  const __m128i lanes = _mm_setr_epi32(0, 1, 2, 3);
  Mask m;
  for (int i = 0; i < 4; ++i) m.v[i] = _mm_castsi128_ps(_mm_cmpgt_epi32(_mm_set1_epi32(count - 4 * i), lanes));
  return m;
}

inline Floats load(const float* from) {
  return {{_mm_loadu_ps(from), _mm_loadu_ps(from + 4), _mm_loadu_ps(from + 8), _mm_loadu_ps(from + 12)}};
}
inline void store(float* to, Floats x) {
  for (int i = 0; i < 4; ++i) _mm_storeu_ps(to + 4 * i, x.v[i]);
}
/// Non-temporal; `to` must be aligned to 16 bytes.
inline void stream(float* to, Floats x) {
  for (int i = 0; i < 4; ++i) _mm_stream_ps(to + 4 * i, x.v[i]);
}
inline void fence() { _mm_sfence(); }
inline Floats load(const float* from, int count) {
  float part[kLanes] = {};
  for (int i = 0; i < count; ++i) part[i] = from[i];
  return load(static_cast<const float*>(part));
}
inline void store(float* to, Floats x, int count) {
  float part[kLanes];
  store(static_cast<float*>(part), x);
  for (int i = 0; i < count; ++i) to[i] = part[i];
}

template <class T>
inline Floats all(float value) {
  const __m128 v = _mm_set1_ps(value);
  return {{v, v, v, v}};
}
inline Floats plus(Floats x, Floats y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm_add_ps(x.v[i], y.v[i]);
  return x;
}
inline Floats minus(Floats x, Floats y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm_sub_ps(x.v[i], y.v[i]);
  return x;
}
/// Rounded separately, even in a file that is compiled with FMA.
inline Floats times(Floats x, Floats y) {
  for (int i = 0; i < 4; ++i) {
    x.v[i] = _mm_mul_ps(x.v[i], y.v[i]);
    __asm__("" : "+x"(x.v[i]));
  }
  return x;
}
inline Floats absolute(Floats x) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm_andnot_ps(_mm_set1_ps(-0.0f), x.v[i]);
  return x;
}
template <class T>
inline Floats rounded(Floats x) {
  return x;
}

inline Mask above(Floats x, Floats y) {
  Mask m;
  for (int i = 0; i < 4; ++i) m.v[i] = _mm_cmpgt_ps(x.v[i], y.v[i]);
  return m;
}
inline Mask equal(Floats x, Floats y) {
  Mask m;
  for (int i = 0; i < 4; ++i) m.v[i] = _mm_cmpeq_ps(x.v[i], y.v[i]);
  return m;
}
inline Mask both(Mask x, Mask y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm_and_ps(x.v[i], y.v[i]);
  return x;
}
inline Mask either(Mask x, Mask y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm_or_ps(x.v[i], y.v[i]);
  return x;
}
inline Mask without(Mask x, Mask y) {
  for (int i = 0; i < 4; ++i) x.v[i] = _mm_andnot_ps(y.v[i], x.v[i]);
  return x;
}
inline unsigned bits(Mask m) {
  const __m128i low = _mm_packs_epi32(_mm_castps_si128(m.v[0]), _mm_castps_si128(m.v[1]));
  const __m128i high = _mm_packs_epi32(_mm_castps_si128(m.v[2]), _mm_castps_si128(m.v[3]));
  return static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(low, high)));
}
inline int count(Mask m) {
  __m128i sum = _mm_setzero_si128();
  for (int i = 0; i < 4; ++i) sum = _mm_sub_epi32(sum, _mm_castps_si128(m.v[i]));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}
inline Floats choose(Mask m, Floats yes, Floats no) {
  for (int i = 0; i < 4; ++i) no.v[i] = _mm_or_ps(_mm_and_ps(m.v[i], yes.v[i]), _mm_andnot_ps(m.v[i], no.v[i]));
  return no;
}
/// Lane by lane without a branch.
inline int compress(float* to, Floats x, Mask m) {
  float lanes[kLanes];
  store(static_cast<float*>(lanes), x);
  const unsigned chosen = bits(m);
  unsigned n = 0;
  for (unsigned i = 0; i < kLanes; ++i) {
    to[n] = lanes[i];
    n += chosen >> i & 1u;
  }
  return static_cast<int>(n);
}

template <class T>
class Block {
 public:
  void take(int pack, const Floats& /*x*/, const Mask& m) {
    chosen_ |= static_cast<uint64_t>(bits(m)) << (kLanes * pack);
  }
  int write(float* to, const float* memory) const { return pick(to, memory, chosen_, __builtin_popcountll(chosen_)); }

 private:
  uint64_t chosen_ = 0;
};

struct Doubles {
  __m128d v[8];
};
inline Doubles widened(Floats x) {
  Doubles wide;
  for (int i = 0; i < 4; ++i) {
    wide.v[2 * i] = _mm_cvtps_pd(x.v[i]);
    wide.v[2 * i + 1] = _mm_cvtps_pd(_mm_movehl_ps(x.v[i], x.v[i]));
  }
  return wide;
}

inline Doubles widened(const float* from) {
  Doubles wide;
  for (int i = 0; i < 8; ++i)
    wide.v[i] = _mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 2 * i))));
  return wide;
}

class LaneSums {
 public:
  LaneSums() {
    for (__m128d& v : v_) v = _mm_setzero_pd();
  }

  void add(const Doubles& x) {
    for (int i = 0; i < 8; ++i) v_[i] = _mm_add_pd(v_[i], x.v[i]);
  }
  void add_squares(const Doubles& x) {
    for (int i = 0; i < 8; ++i) v_[i] = _mm_add_pd(v_[i], _mm_mul_pd(x.v[i], x.v[i]));
  }
  void add_products(const Doubles& x, const Doubles& y) {
    for (int i = 0; i < 8; ++i) v_[i] = _mm_add_pd(v_[i], _mm_mul_pd(x.v[i], y.v[i]));
  }
  double total() const {
    double v[kLanes];
    for (int i = 0; i < 8; ++i) _mm_storeu_pd(v + 2 * i, v_[i]);
    return portable::LaneSums::in_order(v);
  }

 private:
  __m128d v_[8];
};

template <class T>
using Sums = LaneSums;

}  // namespace kernels::cpu::sse2
STEPPE_NAMESPACE_END
#endif
