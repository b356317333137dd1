// Random flat vectors, norms of long ones, and means over draws.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Random flat vectors that depend on the seed only, not on the device or on LibTorch's default generators.
class RandomVectors {
 public:
  /// The same seed gives the same vectors.
  explicit RandomVectors(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

  /// Entries -1 and 1 with equal probability.
  at::Tensor rademacher(int64_t size, const at::TensorOptions& like) {
    return at::randint(2, {size}, generator_, at::TensorOptions().dtype(like.dtype())).mul_(2).sub_(1).to(like);
  }
  /// Standard normal entries.
  at::Tensor normal(int64_t size, const at::TensorOptions& like) {
    return at::randn({size}, generator_, at::TensorOptions().dtype(like.dtype())).to(like);
  }

 private:
  at::Generator generator_;
};

/// A mean over random draws, with the standard error of that mean.
struct Estimate {
  double mean = 0.0;            ///< over the draws
  double standard_error = 0.0;  ///< of the mean; NaN for a single draw
  int64_t draws = 0;            ///< their number
};

namespace detail {

/// In blocks: LibTorch would convert the whole of a long vector to float64 first.
inline double two_norm(const at::Tensor& vector) {
  const int64_t block = 1 << 16, size = vector.size(0);
  std::vector<at::Tensor> norms;
  for (int64_t from = 0; from < size; from += block)
    norms.push_back(at::linalg_vector_norm(vector.slice(0, from, (std::min)(from + block, size)), 2, c10::nullopt,
                                           false, at::kDouble));
  return norms.empty() ? 0.0 : at::linalg_vector_norm(at::stack(norms)).item<double>();
}

inline bool is_finite(const at::Tensor& vector) {
  if (std::isfinite(two_norm(vector))) return true;
  return vector.isfinite().all().item<bool>();  // a float64 norm of finite values can overflow
}

inline Estimate estimate_of(const std::vector<double>& draws) {
  Estimate result;
  result.draws = static_cast<int64_t>(draws.size());
  const double count = static_cast<double>(draws.size());
  for (const double value : draws) result.mean += value / count;
  double squares = 0.0;
  for (const double value : draws) squares += (value - result.mean) * (value - result.mean);
  result.standard_error = draws.size() > 1 ? std::sqrt(squares / (count - 1.0) / count) : std::nan("");
  return result;
}

}  // namespace detail

}  // namespace sharpness
STEPPE_NAMESPACE_END
