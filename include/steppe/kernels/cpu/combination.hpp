// Two lists of tensors in memory: their inner products, their linear combination; on the caller's threads.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/kernels/cpu/layer.hpp>
#include <steppe/kernels/cpu/passes.hpp>
#include <steppe/kernels/formats.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Two tensors of one format in the same order of memory.
struct Pair {
  Format format = Format::Float32;
  const void* x = nullptr;  ///< null: zeros
  const void* y = nullptr;  ///< null: zeros
  void* out = nullptr;      ///< of a combination; may be x or y
  int64_t size = 0;
};

/// One pass over the pairs, piece by piece. The pieces' sums are added in their order: the same bits for any number of
/// threads. `Threads` is as in Ascent.
template <class Threads>
class PairPass {
 public:
  PairPass(const std::vector<Pair>& pairs, const Threads& threads) : pairs_(pairs), threads_(threads) {
    for (size_t i = 0; i < pairs.size(); ++i)
      for (int64_t begin = 0; begin < pairs[i].size; begin += kPiece)
        pieces_.push_back({i, {begin, (std::min)(pairs[i].size, begin + kPiece)}});
  }

  ProductSums products() const {
    ProductSums total;
    const auto of_piece = [](const Pair& pair, Span span, auto format) {
      return products_of<decltype(format)>(pair, span);
    };
    for (const ProductSums& one : of_pieces<ProductSums>(of_piece)) {
      total.xx += one.xx;
      total.xy += one.xy;
      total.yy += one.yy;
    }
    return total;
  }

  /// out = a x + b y. Returns the sum of squares of what was stored.
  double combine(double a, double b) const {
    int64_t bytes = 0;
    for (const Pair& pair : pairs_) bytes += pair.size * bytes_of(pair.format);
    const bool past_cache = bytes > kStreamed;
    double total = 0.0;
    const auto of_piece = [a, b, past_cache](const Pair& pair, Span span, auto format) {
      return combine_part<decltype(format)>(a, b, pair, span, past_cache);
    };
    for (const double one : of_pieces<double>(of_piece)) total += one;
    return total;
  }

 private:
  /// As in Ascent.
  static constexpr int64_t kStreamed = int64_t{1} << 24;

  struct Piece {
    size_t pair;
    Span span;
  };

  template <class T>
  static const T* part(const void* of, Span span) {
    return static_cast<const T*>(of) + span.begin;
  }

  template <class T>
  static ProductSums products_of(const Pair& pair, Span span) {
    const Passes<T>& pass = passes<T>();
    const int64_t n = span.end - span.begin;
    if (pair.x == nullptr) return {0.0, 0.0, pass.squares(part<T>(pair.y, span), n)};
    if (pair.y == nullptr) return {pass.squares(part<T>(pair.x, span), n), 0.0, 0.0};
    return pass.products(part<T>(pair.x, span), part<T>(pair.y, span), n);
  }

  template <class T>
  static double combine_part(double a, double b, const Pair& pair, Span span, bool past_cache) {
    using N = Number<T>;
    if (pair.x == nullptr)
      return combine_part<T>(b, a, {pair.format, pair.y, pair.x, pair.out, pair.size}, span, past_cache);
    const T* y = pair.y == nullptr ? nullptr : part<T>(pair.y, span);
    const bool in_place = pair.out == pair.x || pair.out == pair.y;
    return passes<T>().combine(static_cast<N>(a), part<T>(pair.x, span), static_cast<N>(b), y,
                               static_cast<T*>(pair.out) + span.begin, span.end - span.begin, past_cache && !in_place);
  }

  /// Calls body(pair, span, a value of the format's type) for every piece.
  template <class Result, class Body>
  std::vector<Result> of_pieces(Body&& body) const {
    std::vector<Result> results(pieces_.size());
    threads_.run(static_cast<int64_t>(pieces_.size()), [&](int64_t k, int) {
      const Piece& piece = pieces_[static_cast<size_t>(k)];
      const Pair& pair = pairs_[piece.pair];
      Result& result = results[static_cast<size_t>(k)];
      switch (pair.format) {
        case Format::Float32:
          result = body(pair, piece.span, float());
          return;
        case Format::Float64:
          result = body(pair, piece.span, double());
          return;
        case Format::BFloat16:
          result = body(pair, piece.span, BFloat16());
          return;
        case Format::Half:
          result = body(pair, piece.span, Half());
          return;
      }
    });
    return results;
  }

  const std::vector<Pair>& pairs_;
  const Threads& threads_;
  std::vector<Piece> pieces_;
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
