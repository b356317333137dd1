// One parameter tensor of an ascent as memory, and how it is cut into pieces of work; the same on every device.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels {

/// How numbers are stored.
enum class Format : int32_t { Float32, Float64, BFloat16, Half };

/// Of one number.
constexpr int64_t bytes_of(Format format) { return format == Format::Float32 ? 4 : format == Format::Float64 ? 8 : 2; }

/// One parameter tensor in the order of its memory, and what the recipe does with it. The pointers are to memory of the
/// device that computes.
struct Layer {
  Format format = Format::Float32;
  const void* direction = nullptr;
  const void* weights = nullptr;
  void* out = nullptr;  ///< receives w + e; may be the direction or the weights; null: measured only
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

/// The pieces of a layer: whole rows, or parts of one row where it is longer than a piece. Without padding, as a part
/// of tables that are compared as bytes.
struct Pieces {
  int64_t size, row;  ///< of the layer
  int64_t length;     ///< of a piece, in components
  int64_t per_row;    ///< pieces of a row that is longer than one; otherwise 0

  /// Pieces of at most `most` components.
  static Pieces of(int64_t size, int64_t row, int64_t most) {
    if (row == 0) return {size, row, most, 0};
    if (row > most) return {size, row, most, (row + most - 1) / most};
    // In multiples of eight rows where more fit, so that these pieces begin at a vector's boundary.
    const int64_t rows = most / row;
    return {size, row, (rows > 8 ? rows / 8 * 8 : rows) * row, 0};
  }

  int64_t count() const { return cut_rows() ? size / row * per_row : (size + length - 1) / length; }

  /// Whether a row is longer than a piece.
  STEPPE_HOST_DEVICE bool cut_rows() const { return per_row > 0; }

  STEPPE_HOST_DEVICE Span span(int64_t piece) const {
    int64_t begin = piece * length, end = size;
    if (cut_rows()) {
      const int64_t first = piece / per_row * row;
      begin = first + piece % per_row * length;
      end = first + row;
    }
    return {begin, begin + length < end ? begin + length : end};
  }
};

}  // namespace kernels
STEPPE_NAMESPACE_END
