// How the CPU cuts a layer, and what it measures of one.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/layer.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Components of one piece of work: small enough for the second-level cache, large enough to hide its overhead.
constexpr int64_t kPiece = int64_t{1} << 16;

inline Pieces pieces_of(const Layer& layer) { return Pieces::of(layer.size, layer.row, kPiece); }

/// The results of measuring a layer's direction.
struct Statistics {
  double gradient_squares = 0.0;  ///< of the input
  double measure = 0.0;           ///< of T d: its part of the global norm, squared
  double length = 0.0;            ///< of T T d, squared
  int64_t kept = 0;               ///< components that the filter kept, if there is one
  bool tail_found = false;        ///< the filter kept something
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
