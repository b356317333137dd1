// One parameter tensor of an ascent as memory, and how it is cut into pieces of work.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// How numbers are stored.
enum class Format : int { Float32, Float64, BFloat16, Half };

/// Components of one piece of work: small enough for the second-level cache, large enough to hide its overhead.
constexpr int64_t kPiece = int64_t{1} << 16;

/// One parameter tensor in the order of its memory, and what the recipe does with it.
struct Layer {
  Format format = Format::Float32;
  const void* direction = nullptr;
  const void* weights = nullptr;
  void* out = nullptr;  ///< receives w + e; may be the direction or the weights
  int64_t size = 0;
  int64_t row = 0;  ///< components per output row if it is centralized; otherwise 0
  bool filtered = false;
  double quantile = 0.95;
  bool scaled = false;
  double eta = 0.0;
};

/// Components [begin, end) of a layer.
struct Span {
  int64_t begin, end;
};

/// The pieces of a layer; where it has rows, a piece is whole rows or part of one.
class Pieces {
 public:
  explicit Pieces(const Layer& layer) : size_(layer.size), row_(layer.row) {
    if (row_ == 0) {
      length_ = kPiece;
    } else if (row_ <= kPiece) {
      length_ = kPiece / row_ * row_;
    } else {
      length_ = kPiece;
      in_row_ = (row_ + kPiece - 1) / kPiece;
    }
  }

  int64_t count() const { return in_row_ > 0 ? size_ / row_ * in_row_ : (size_ + length_ - 1) / length_; }
  Span span(int64_t piece) const {
    if (in_row_ == 0) return {piece * length_, (std::min)(size_, (piece + 1) * length_)};
    const int64_t row = piece / in_row_ * row_, begin = row + piece % in_row_ * length_;
    return {begin, (std::min)(row + row_, begin + length_)};
  }
  /// Whether a row is longer than a piece.
  bool cut_rows() const { return in_row_ > 0; }

 private:
  int64_t size_, row_, length_ = 0, in_row_ = 0;
};

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
