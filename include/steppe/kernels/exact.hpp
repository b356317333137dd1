// Float arithmetic that flags of nvcc and contraction on the host do not change: each operation rounds once.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include <steppe/no_fast_math.hpp>
#include <steppe/version.hpp>

#ifdef __CUDACC__
#define STEPPE_HOST_DEVICE __host__ __device__
#else
#define STEPPE_HOST_DEVICE
#endif

/// On CUDA devices the instructions are written out, because -ftz=true and --use_fast_math change what operators and
/// intrinsics become. On the host a product is kept from becoming part of a fused multiply-add.
STEPPE_NAMESPACE_BEGIN
namespace kernels::exact {

STEPPE_HOST_DEVICE inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
STEPPE_HOST_DEVICE inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

STEPPE_HOST_DEVICE inline float sum(float a, float b) {
#ifdef __CUDA_ARCH__
  float result;
  asm("add.rn.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return a + b;
#endif
}

STEPPE_HOST_DEVICE inline float difference(float a, float b) {
#ifdef __CUDA_ARCH__
  float result;
  asm("sub.rn.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return a - b;
#endif
}

/// a b on the host: what is added to it cannot become part of the same operation.
template <class N>
N product_on_host(N a, N b) {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
  N result = a * b;
  __asm__("" : "+x"(result));
  return result;
#elif defined(__GNUC__) && defined(__aarch64__)
  N result = a * b;
  __asm__("" : "+w"(result));
  return result;
#else
  const volatile N result = a * b;
  return result;
#endif
}

STEPPE_HOST_DEVICE inline float product(float a, float b) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return product_on_host(a, b);
#endif
}
inline double product(double a, double b) { return product_on_host(a, b); }

/// a b - c, rounded once.
STEPPE_HOST_DEVICE inline float product_less(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  float result;
  asm("{\n\t.reg .f32 minus;\n\tneg.f32 minus, %3;\n\tfma.rn.f32 %0, %1, %2, minus;\n\t}"
      : "=f"(result)
      : "f"(a), "f"(b), "f"(c));
  return result;
#else
  return std::fma(a, b, -c);
#endif
}

STEPPE_HOST_DEVICE inline float magnitude(float a) { return float_of(bits_of(a) & 0x7fffffffu); }

STEPPE_HOST_DEVICE inline bool is_zero(float a) { return (bits_of(a) << 1) == 0; }

/// a == b, written so that -Wfloat-equal accepts it as intended.
template <class T>
constexpr bool are_equal(T a, T b) {
  return a <= b && a >= b;
}
constexpr bool is_zero(double a) { return are_equal(a, 0.0); }

STEPPE_HOST_DEVICE inline bool is_greater(float a, float b) {
#ifdef __CUDA_ARCH__
  uint32_t result;
  asm("{\n\t.reg .pred p;\n\tsetp.gt.f32 p, %1, %2;\n\tselp.u32 %0, 1, 0, p;\n\t}" : "=r"(result) : "f"(a), "f"(b));
  return result != 0;
#else
  return a > b;
#endif
}

STEPPE_HOST_DEVICE inline double as_double(float a) {
#ifdef __CUDA_ARCH__
  double result;
  asm("cvt.f64.f32 %0, %1;" : "=d"(result) : "f"(a));
  return result;
#else
  return static_cast<double>(a);
#endif
}

/// Rounded to nearest.
STEPPE_HOST_DEVICE inline float as_float(double a) {
#ifdef __CUDA_ARCH__
  float result;
  asm("cvt.rn.f32.f64 %0, %1;" : "=f"(result) : "d"(a));
  return result;
#else
  return static_cast<float>(a);
#endif
}

}  // namespace kernels::exact
STEPPE_NAMESPACE_END
