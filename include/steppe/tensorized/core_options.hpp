// Options of a tensorized layer: format, ranks, modes, and how its forward pass computes.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <cmath>
#include <cstdint>
#include <ostream>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/no_fast_math.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// How a weight, viewed as a tensor of its modes, is factorized into cores.
enum class Format : int64_t {
  CP,           ///< sum of outer products, one factor per mode
  Tucker,       ///< one core and one factor per mode
  TensorTrain,  ///< chain of three-way cores
  TensorRing,   ///< the same, closed to a ring
};

/// Writes the format's name, such as "TensorTrain".
inline std::ostream& operator<<(std::ostream& out, Format format) {
  switch (format) {
    case Format::CP:
      return out << "CP";
    case Format::Tucker:
      return out << "Tucker";
    case Format::TensorTrain:
      return out << "TensorTrain";
    case Format::TensorRing:
      break;
  }
  return out << "TensorRing";
}

/// How a layer computes its output.
enum class Route : int64_t {
  Cheapest,  ///< whichever of the two below takes fewer multiplications for the input's shape
  Cores,     ///< core by core, in the cheapest order that never builds the full weight
  Full,      ///< through the full weight
};

/// Options of tensorized layers. One of rank, ranks and compression must be given.
///
///     CoreOptions().format(Format::TensorRing).compression(10)
struct CoreOptions {
  /// The format of the cores.
  TORCH_ARG(Format, format) = Format::TensorTrain;
  /// One rank for all places; in Tucker and train format, limited at each place to the largest that a weight can need.
  TORCH_ARG(int64_t, rank) = 0;
  /// Every rank: CP {R}; Tucker one per channel mode; tensor train r_1..r_{n-1}; tensor ring r_0..r_{n-1}. Output modes
  /// come first, then the kernel's, then input modes. Used as given, even where no weight needs that many, so that
  /// cores of other programs can be loaded; decompose() fills surplus ranks so that they add nothing and can learn.
  TORCH_ARG(std::vector<int64_t>, ranks);
  /// At least this ratio of the full weight's parameters to the cores': the largest rank that reaches it is used.
  TORCH_ARG(double, compression) = 0.0;
  /// The number of modes that features or channels are split into, as evenly as their divisors allow; 0: two, but one
  /// for the channels of a convolution in CP or Tucker format. Modes of size one are left out.
  TORCH_ARG(int64_t, modes) = 0;
  /// The modes themselves; their product must be the number of features or channels.
  ///@{
  TORCH_ARG(std::vector<int64_t>, in_modes);
  TORCH_ARG(std::vector<int64_t>, out_modes);
  ///@}
  /// How forward() computes.
  TORCH_ARG(Route, route) = Route::Cheapest;
  /// Random cores give the full weight the variance gain^2 / fan_in: by default Kaiming's for ReLU; 1/sqrt(3) gives
  /// that of LibTorch's own layers.
  TORCH_ARG(double, gain) = 1.4142135623730951;
  /// At most so many sweeps of ALS (CP, ring) or HOOI (Tucker) when a given weight is decomposed.
  TORCH_ARG(int64_t, sweeps) = 100;
  /// Sweeps end when one lowers the error by less than this share of the weight's norm.
  TORCH_ARG(double, tolerance) = 1e-8;

 public:
  /// Throws c10::Error unless exactly one of rank, ranks and compression is given, or if a number is out of range.
  void validate() const {
    const int given = (rank_ != 0) + !ranks_.empty() + (!kernels::exact::is_zero(compression_));
    TORCH_CHECK(given == 1, "steppe: a tensorized layer needs one of rank, ranks and compression, got ", given);
    TORCH_CHECK(rank_ >= 0, "steppe: rank must be at least 1, got ", rank_);
    TORCH_CHECK(std::isfinite(compression_) && compression_ >= 0.0, "steppe: compression must be over 0, got ",
                compression_);
    TORCH_CHECK(modes_ >= 0 && modes_ <= 6, "steppe: features are split into 1 to 6 modes, got ", modes_);
    TORCH_CHECK(std::isfinite(gain_) && gain_ >= 0.0, "steppe: gain must be finite and at least 0, got ", gain_);
  }
};

}  // namespace tensorized
STEPPE_NAMESPACE_END
