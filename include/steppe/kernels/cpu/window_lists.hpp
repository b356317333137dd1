// The components of a layer in a window around an order statistic, piece by piece, and that statistic.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/kernels/cpu/layer.hpp>
#include <steppe/kernels/cpu/memory.hpp>
#include <steppe/kernels/cpu/order_statistic.hpp>
#include <steppe/kernels/cpu/passes.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/formats.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Sums over all components, and a list of those inside the window; a list for every piece. T is their storage format.
template <class T>
class WindowLists {
 public:
  using N = Number<T>;

  /// Reserves twice the share of components that a sample had inside.
  void begin(const Passes<T>& passes, int64_t pieces, const Window<N>& window, double share_inside) {
    passes_ = &passes;
    window_ = window;
    room_ = (std::min)(kPiece, static_cast<int64_t>(2.0 * share_inside * static_cast<double>(kPiece)) + 512);
    inside_.room_for<N>(pieces * room_);
    parts_.assign(static_cast<size_t>(pieces), Part());
  }

  const Window<N>& window() const { return window_; }

  /// `see(seen)` runs window passes over the piece. May be called for several pieces at once.
  template <class See>
  void sweep(int64_t piece, Memory& scratch, See&& see) {
    Part& part = parts_[static_cast<size_t>(piece)];
    part = Part();
    N* const list = part.seen.list = scratch.room_for<N>(kPiece + kBlockRoom);
    see(part.seen);
    part.inside = passes_->within(list, part.seen.list - list, window_, list, part.above);
    if (part.inside <= room_) std::copy(list, list + part.inside, inside_of(piece));
  }

  /// Ends the sweep: sums the pieces in their order.
  void settle() {
    seen_ = Seen<N>();
    above_ = AboveWindow();
    inside_count_ = 0;
    full_ = false;
    for (const Part& part : parts_) {
      seen_.sum += part.seen.sum;
      seen_.squares += part.seen.squares;
      seen_.plateau += part.seen.plateau;
      above_.squares += part.above.squares;
      above_.count += part.above.count;
      inside_count_ += part.inside;
      full_ = full_ || part.inside > room_;
    }
  }

  double sum() const { return seen_.sum; }
  double squares() const { return seen_.squares; }

  /// The |x - mean| of this rank in descending order; false if it cannot be shown to be in the lists.
  bool find(int64_t rank, N mean, Memory& scratch, N& found) {
    rank -= above_.count;
    if (full_ || rank < 0 || rank >= inside_count_ + seen_.plateau) return false;
    found = select(rank, mean, scratch);
    // The window is around another centre than the mean: its edges are valid only up to that shift.
    const double shift = std::fabs(static_cast<double>(mean) - static_cast<double>(window_.centre));
    const double low = window_.low < N{0}
                           ? -1.0
                           : exact::product(static_cast<double>(window_.low) + shift, 1.0 + kRelative) + kAbsolute;
    const double high = exact::product(static_cast<double>(window_.high) - shift, 1.0 - kRelative) - kAbsolute;
    return static_cast<double>(found) > low && static_cast<double>(found) < high;
  }

  /// Squares of the components that the bounds of a threshold from find() keep, and their number.
  double kept_squares(const FilterBounds<N>& bounds, int64_t& kept) {
    double squares = above_.squares;
    kept = above_.count;
    for (size_t piece = 0; piece < parts_.size(); ++piece)
      squares += passes_->kept_squares(inside_of(static_cast<int64_t>(piece)), parts_[piece].inside, bounds, kept);
    if (seen_.plateau == 0 || !bounds.keep(window_.plateau)) return squares;
    kept += seen_.plateau;
    const auto plateau = static_cast<double>(window_.plateau);
    return squares + exact::product(static_cast<double>(seen_.plateau) * plateau, plateau);
  }

  int64_t bytes() const { return inside_.bytes() + static_cast<int64_t>(parts_.capacity() * sizeof(Part)); }

 private:
  struct Part {
    Seen<N> seen;
    AboveWindow above;
    int64_t inside = 0;  ///< if more than there is room for, they are not kept
  };

  /// The rounding error of a distance: in float that of its computation, in 16 bits that of storing it as well, which
  /// for half's subnormal numbers is half of their last place.
  static constexpr double kRelative = std::is_same_v<T, BFloat16> ? 0x1p-7 : std::is_same_v<T, Half> ? 0x1p-10 : 1e-6;
  static constexpr double kAbsolute = std::is_same_v<T, Half> ? 0x1p-24 : 0.0;

  static N distance_of(N x, N mean) { return std::fabs(rounded_to<T>(x - mean)); }

  N* inside_of(int64_t piece) { return inside_.room_for<N>(0) + piece * room_; }

  /// Distances of the listed components in (low, high]; returns how many, and counts those above.
  int64_t distances(N mean, N low, N high, N* to, int64_t& above) {
    int64_t found = 0;
    for (size_t piece = 0; piece < parts_.size(); ++piece)
      found += passes_->distances_between(inside_of(static_cast<int64_t>(piece)), parts_[piece].inside, mean, low, high,
                                          to + found, above);
    return found;
  }

  /// Estimates a bracket of `rank` among the listed components from some of them.
  void guess_bracket(int64_t rank, N mean, N& low, N& high) {
    constexpr int64_t kSome = 128;
    N some[kSome];
    size_t piece = 0;
    int64_t before = 0;
    for (int64_t i = 0; i < kSome; ++i) {
      const int64_t at = i * inside_count_ / kSome;
      while (at - before >= parts_[piece].inside) before += parts_[piece++].inside;
      some[i] = distance_of(inside_of(static_cast<int64_t>(piece))[at - before], mean);
    }
    bracket_of(some, kSome, static_cast<double>(rank) / static_cast<double>(inside_count_), low, high);
  }

  /// The value of a rank among the listed components and the plateau.
  N select(int64_t rank, N mean, Memory& scratch) {
    constexpr int64_t kMany = kPiece / 8;
    constexpr N kHighest = std::numeric_limits<N>::infinity();
    N* const keys = scratch.room_for<N>(inside_count_ + kBlockRoom);
    int64_t above = 0;
    if (seen_.plateau > 0) {
      const N level = distance_of(window_.plateau, mean);
      distances(mean, level, level, keys, above);
      if (rank >= above && rank < above + seen_.plateau) return level;
      if (rank >= above) rank -= seen_.plateau;
    }
    N low = -1, high = kHighest;
    if (inside_count_ > kMany) guess_bracket(rank, mean, low, high);
    above = 0;
    int64_t found = distances(mean, low, high, keys, above);
    if (rank < above || rank >= above + found) {
      above = 0;
      found = distances(mean, N{-1}, kHighest, keys, above);
    }
    return order_statistic(passes<N>(), keys, found, rank - above);
  }

  const Passes<T>* passes_ = nullptr;
  Window<N> window_;
  Memory inside_;
  int64_t room_ = 0;
  std::vector<Part> parts_;
  Seen<N> seen_;
  AboveWindow above_;
  int64_t inside_count_ = 0;
  bool full_ = false;
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
