// The 16-bit floating-point formats as plain bits, and their conversions.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels {

/// 1 sign, 8 exponent, 7 mantissa bits.
struct BFloat16 {
  uint16_t bits;
};

/// IEEE binary16: 1 sign, 5 exponent, 10 mantissa bits.
struct Half {
  uint16_t bits;
};

STEPPE_HOST_DEVICE inline float widen(BFloat16 x) { return exact::float_of(uint32_t{x.bits} << 16); }

/// Rounded to nearest, ties to even; NaN stays NaN. CUDA devices have instructions for this, bfloat16's from 8.0 on;
/// they are written out for the same reason as those of exact.hpp.
STEPPE_HOST_DEVICE inline void narrow(float value, BFloat16& to) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t pair;  // the instruction for one number alone is slower
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(0.0f), "f"(value));
  to.bits = static_cast<uint16_t>(pair);
#else
  const uint32_t bits = exact::bits_of(value);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  to.bits = static_cast<uint16_t>(is_nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
}

STEPPE_HOST_DEVICE inline float widen(Half x) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#else
  const uint32_t sign = uint32_t{x.bits & 0x8000u} << 16;
  const uint32_t rest = x.bits & 0x7fffu;
  if (rest >= 0x7c00u) return exact::float_of(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
  // Subnormal numbers as integers times 2^-24: kept even where the processor treats subnormal floats as zero.
  const float value = rest < 0x400u ? exact::product(static_cast<float>(rest), exact::float_of(0x33800000u))
                                    : exact::float_of((rest << 13) + 0x38000000u);
  return exact::float_of(sign | exact::bits_of(value));
#endif
}

/// Rounded to nearest, ties to even; infinity beyond the range; NaN stays NaN.
STEPPE_HOST_DEVICE inline void narrow(float value, Half& to) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(value));
#else
  const uint32_t bits = exact::bits_of(value);
  const uint32_t sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  uint32_t result;
  if (size > 0x7f800000u) {
    result = 0x7e00u;
  } else if (size >= 0x477ff000u) {  // 65520 and above round to infinity
    result = 0x7c00u;
  } else if (size < 0x38800000u) {  // below 2^-14: the sum with 1/2 rounds where a subnormal number ends
    result = exact::bits_of(exact::sum(exact::float_of(size), 0.5f)) - exact::bits_of(0.5f);
  } else {
    result = (size + 0xfffu + ((size >> 13) & 1u) - 0x38000000u) >> 13;
  }
  to.bits = static_cast<uint16_t>(sign | result);
#endif
}

/// The type in which numbers of a storage format are computed.
template <class T>
struct Compute {
  using Number = float;
};
template <>
struct Compute<double> {
  using Number = double;
};
template <class T>
using Number = typename Compute<T>::Number;

STEPPE_HOST_DEVICE inline float widen(float x) { return x; }
STEPPE_HOST_DEVICE inline double widen(double x) { return x; }
STEPPE_HOST_DEVICE inline void narrow(float value, float& to) { to = value; }
STEPPE_HOST_DEVICE inline void narrow(double value, double& to) { to = value; }

/// A number of the compute type rounded to the storage format.
template <class T>
STEPPE_HOST_DEVICE Number<T> rounded_to(Number<T> value) {
  T stored;
  narrow(value, stored);
  return widen(stored);
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
/// In the upper half of a pair it is wide already.
template <>
__device__ inline float rounded_to<BFloat16>(float value) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(value), "f"(0.0f));
  return exact::float_of(pair);
}
#endif

}  // namespace kernels
STEPPE_NAMESPACE_END
