// The work on one layer: measure its direction in as few reads as the recipe allows, then move along it.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/kernels/cpu/layer.hpp>
#include <steppe/kernels/cpu/memory.hpp>
#include <steppe/kernels/cpu/order_statistic.hpp>
#include <steppe/kernels/cpu/sample.hpp>

namespace steppe::kernels::cpu {

/// Scratch of one thread.
struct Worker {
  Memory keys, list;
};

/// Measuring is a few sweeps over the layer. The pieces of a sweep are independent; settle() ends it and says what is
/// next. Sums are added in the order of the pieces: the same bits for any number of threads.
class LayerJob {
 public:
  virtual ~LayerJob() = default;
  /// Takes the layer up; afterwards the first sweep is due.
  virtual void start(const Layer& layer, Worker& worker) = 0;
  virtual bool sweep_due() const = 0;
  virtual void sweep(int64_t piece, Worker& worker) = 0;
  virtual void settle(Worker& worker) = 0;
  /// w + factor * u for one piece.
  virtual void ascend(int64_t piece, double factor, bool past_cache) const = 0;
  virtual int64_t bytes() const = 0;

  int64_t pieces() const { return pieces_; }
  const Statistics& statistics() const { return statistics_; }

 protected:
  int64_t pieces_ = 0;
  Statistics statistics_;
};

template <class T>
class LayerJobOf final : public LayerJob {
 public:
  using N = Number<T>;

  void start(const Layer& layer, Worker& worker) override {
    passes_ = &passes<T>();
    lists_ = &passes<N>();
    layer_ = layer;
    pieces_ = Pieces(layer).count();
    statistics_ = Statistics();
    rule_ = Rule<T>();
    rule_.scaled = layer.scaled;
    rule_.eta = static_cast<N>(layer.eta);
    attempt_ = 0;
    parts_.assign(static_cast<size_t>(pieces_), Part());
    if (layer.row > 0) {
      sweep_ = Sweep::Rows;
      row_means_.resize(static_cast<size_t>(layer.size / layer.row));
    } else {
      begin_direction(worker);
    }
    if (layer.size == 0) sweep_ = Sweep::None;
  }

  bool sweep_due() const override { return sweep_ != Sweep::None; }

  void sweep(int64_t piece, Worker& worker) override {
    Part& part = parts_[static_cast<size_t>(piece)];
    const Span span = Pieces(layer_).span(piece);
    switch (sweep_) {
      case Sweep::Rows:
        return sweep_rows(span, part);
      case Sweep::Sums:
        return sweep_sums(span, part);
      case Sweep::Window:
        return sweep_window(span, piece, worker);
      case Sweep::Measure:
        return sweep_measure(span, part);
      case Sweep::None:
        return;
    }
  }

  void settle(Worker& worker) override {
    switch (sweep_) {
      case Sweep::Rows:
        return settle_rows(worker);
      case Sweep::Sums:
        return settle_sums(worker);
      case Sweep::Window:
        return settle_window(worker);
      case Sweep::Measure:
        return settle_measure();
      case Sweep::None:
        return;
    }
  }

  void ascend(int64_t piece, double factor, bool past_cache) const override {
    const Span span = Pieces(layer_).span(piece);
    for (Runs run(*this, span); run.left(); run.next())
      passes_->ascend(gradient() + run.begin, weights() + run.begin, static_cast<T*>(layer_.out) + run.begin, run.size(),
                      run.rule, static_cast<N>(factor), past_cache);
  }

  int64_t bytes() const override {
    return inside_.bytes() + static_cast<int64_t>(parts_.capacity() * sizeof(Part) + row_means_.capacity() * sizeof(N));
  }

 private:
  enum class Sweep {
    None,
    Rows,     ///< sums of the rows
    Sums,     ///< sum and squares of the direction
    Window,   ///< the same, and the components around the threshold
    Measure,  ///< squares of the direction as it is known by then
  };

  /// What a piece contributes.
  struct Part {
    double sum = 0.0, squares = 0.0;
    Measured measured;
    Seen<N> seen;
    Above above;
    int64_t inside = 0;  ///< more than there is room for: they are not kept
  };

  static constexpr bool kIsFloat = std::is_same_v<T, float>;
  /// Below this many components everything is in the cache, and sampling would not pay.
  static constexpr int64_t kSampled = 1 << 15;
  static constexpr int kAttempts = 2;

  const T* gradient() const { return static_cast<const T*>(layer_.direction); }
  const T* weights() const { return static_cast<const T*>(layer_.weights); }

  /// The runs of a span that share one rule: the span itself, or its rows.
  struct Runs {
    Runs(const LayerJobOf& of_job, Span span) : job(of_job), begin(span.begin), last(span.end), rule(of_job.rule_) { enter(); }
    bool left() const { return begin < last; }
    int64_t size() const { return end - begin; }
    void next() {
      begin = end;
      if (left()) enter();
    }
    void enter() {
      const int64_t row = job.layer_.row;
      end = row == 0 ? last : std::min(last, (begin / row + 1) * row);
      if (rule.centralized && left()) rule.row_mean = job.row_means_[static_cast<size_t>(begin / row)];
    }

    const LayerJobOf& job;
    int64_t begin, last, end = 0;
    Rule<T> rule;
  };

  // ---- Rows

  /// The sum of squares about the mean, by one read.
  static double squares_about_mean(double sum, double squares, int64_t n) {
    return squares - sum * sum / static_cast<double>(n);
  }

  N mean_of(double sum, int64_t n) const { return rounded_to<T>(static_cast<N>(sum / static_cast<double>(n))); }

  void sweep_rows(Span span, Part& part) {
    part = Part();
    const bool cut = Pieces(layer_).cut_rows();
    for (Runs run(*this, span); run.left(); run.next()) {
      double sum = 0.0, squares = 0.0;
      passes_->sums(gradient() + run.begin, run.size(), sum, squares);
      part.sum += sum;
      part.squares += squares;
      if (cut) continue;
      const int64_t n = run.size();
      const N mean = row_means_[static_cast<size_t>(run.begin / n)] = mean_of(sum, n);
      double about_mean = squares_about_mean(sum, squares, n);
      // Where nearly all cancels, and near the smallest numbers, the rounded differences themselves are measured.
      if (!(about_mean > 1e-3 * squares) || squares < 1e-70 * static_cast<double>(n)) {
        Rule<T> centralize;
        centralize.centralized = true;
        centralize.row_mean = mean;
        Measured exact;
        passes_->measure(gradient() + run.begin, weights() + run.begin, n, centralize, exact);
        about_mean = exact.measure;
      }
      part.measured.measure += about_mean;
    }
  }

  void settle_rows(Worker& worker) {
    for (const Part& part : parts_) {
      statistics_.gradient_squares += part.squares;
      statistics_.measure += part.measured.measure;
    }
    rule_.centralized = true;
    const Pieces pieces(layer_);
    if (pieces.cut_rows()) {
      const int64_t per_row = pieces_ / (layer_.size / layer_.row);
      for (size_t r = 0; r < row_means_.size(); ++r) {
        double sum = 0.0;
        for (int64_t i = 0; i < per_row; ++i) sum += parts_[r * static_cast<size_t>(per_row) + static_cast<size_t>(i)].sum;
        row_means_[r] = mean_of(sum, layer_.row);
      }
    }
    if (layer_.filtered) return begin_direction(worker);
    statistics_.length = statistics_.measure;
    // Of 16-bit formats the rounded differences are measured, and of rows that were cut nothing is known yet.
    sweep_ = layer_.scaled || pieces.cut_rows() || sizeof(T) == 2 ? Sweep::Measure : Sweep::None;
  }

  // ---- What is not centralized, or is by now

  void begin_direction(Worker& worker) {
    if (!layer_.filtered) {
      sweep_ = layer_.scaled ? Sweep::Measure : Sweep::Sums;
    } else if (kIsFloat && layer_.size >= kSampled) {
      begin_window(worker, false, N{0});
    } else {
      sweep_ = Sweep::Sums;
    }
  }

  void sweep_sums(Span span, Part& part) {
    part = Part();
    for (Runs run(*this, span); run.left(); run.next()) {
      if (!layer_.filtered) {
        part.squares += passes_->squares(gradient() + run.begin, run.size());
      } else if (!run.rule.centralized) {
        passes_->sums(gradient() + run.begin, run.size(), part.sum, part.squares);
      } else {
        centralized_sums(run, part);
      }
    }
  }

  /// Rare enough to be plain: the sum of what is left after centralizing is only rounding.
  void centralized_sums(const Runs& run, Part& part) {
    for (int64_t i = run.begin; i < run.end; ++i)
      part.sum += static_cast<double>(rounded_to<T>(widen(gradient()[i]) - run.rule.row_mean));
  }

  void settle_sums(Worker& worker) {
    double sum = 0.0, squares = 0.0;
    for (const Part& part : parts_) {
      sum += part.sum;
      squares += part.squares;
    }
    if (!rule_.centralized) statistics_.gradient_squares = squares;
    statistics_.measure = statistics_.length = squares;
    sweep_ = Sweep::None;
    if (!layer_.filtered) return;
    rule_.mean = mean_of(sum, layer_.size);
    sweep_ = Sweep::Measure;
    if (!std::isfinite(statistics_.gradient_squares)) return;  // nothing will move
    rule_.threshold = select_exactly(rank_from_top(), worker);
    rule_.filtered = true;
  }

  void sweep_measure(Span span, Part& part) {
    part = Part();
    for (Runs run(*this, span); run.left(); run.next())
      passes_->measure(gradient() + run.begin, weights() + run.begin, run.size(), run.rule, part.measured);
  }

  void settle_measure() {
    Measured all;
    for (const Part& part : parts_) {
      all.raw += part.measured.raw;
      all.measure += part.measured.measure;
      all.length += part.measured.length;
      all.kept += part.measured.kept;
    }
    if (!rule_.centralized && !layer_.filtered) statistics_.gradient_squares = all.raw;
    statistics_.measure = all.measure;
    statistics_.length = all.length;
    sweep_ = Sweep::None;
    if (!layer_.filtered) return;
    statistics_.kept = all.kept;
    statistics_.tail_found = rule_.filtered && all.kept > 0;
    if (rule_.filtered && all.kept == 0) keep_everything();
  }

  /// A tensor without a tail keeps its direction, which has to be measured as that.
  void keep_everything() {
    rule_.filtered = false;
    statistics_.kept = layer_.size;
    sweep_ = Sweep::Measure;
  }

  // ---- The threshold: an order statistic of |x - mean|

  /// Of the largest value that is not kept, in descending order.
  int64_t rank_from_top() const {
    const auto rank = static_cast<int64_t>(std::floor(layer_.quantile * static_cast<double>(layer_.size - 1)));
    return layer_.size - 1 - std::min(layer_.size - 1, rank);
  }

  void begin_window(Worker& worker, bool mean_is_known, N mean) {
    Sample<N> sample(*lists_, worker.keys.room_for<N>(Sample<N>::kRoom));
    sample.draw(gradient(), layer_.size, rule_.centralized ? row_means_.data() : nullptr, layer_.row);
    window_ = sample.window(mean_is_known ? mean : sample.mean(), rank_from_top(), attempt_ == 0 ? 3.5 : 14.0);
    inside_room_ = std::min(kPiece, static_cast<int64_t>(2.0 * sample.share_inside() * static_cast<double>(kPiece)) + 512);
    inside_.room_for<N>(pieces_ * inside_room_);
    sweep_ = Sweep::Window;
  }

  void sweep_window(Span span, int64_t piece, Worker& worker) {
    Part& part = parts_[static_cast<size_t>(piece)];
    part = Part();
    N* const list = part.seen.list = worker.list.room_for<N>(kPiece + kBlockRoom);
    for (Runs run(*this, span); run.left(); run.next())
      passes_->window(gradient() + run.begin, run.size(), run.rule, window_, part.seen);
    part.inside = lists_->within(list, part.seen.list - list, window_, list, part.above);
    if (part.inside <= inside_room_) std::copy(list, list + part.inside, inside_of(piece));
  }

  N* inside_of(int64_t piece) { return inside_.room_for<N>(0) + piece * inside_room_; }

  void settle_window(Worker& worker) {
    Seen<N> all;
    Above above;
    for (const Part& part : parts_) {
      all.sum += part.seen.sum;
      all.squares += part.seen.squares;
      all.plateau += part.seen.plateau;
      above.squares += part.above.squares;
      above.count += part.above.count;
    }
    if (!rule_.centralized) statistics_.gradient_squares = all.squares;
    statistics_.measure = statistics_.length = all.squares;
    sweep_ = Sweep::None;
    if (!std::isfinite(all.squares)) return;  // nothing will move
    rule_.mean = mean_of(all.sum, layer_.size);
    if (!threshold_from(all.plateau, above.count, worker)) return;
    rule_.filtered = true;
    statistics_.kept = 0;
    double squares = above.squares;
    for (int64_t piece = 0; piece < pieces_; ++piece)
      squares += lists_->kept_squares(inside_of(piece), parts_[static_cast<size_t>(piece)].inside, rule_.mean,
                                      rule_.threshold, statistics_.kept);
    statistics_.kept += above.count;
    if (all.plateau > 0 && std::fabs(window_.plateau - rule_.mean) > rule_.threshold) {
      statistics_.kept += all.plateau;
      squares += static_cast<double>(all.plateau) * static_cast<double>(window_.plateau) * static_cast<double>(window_.plateau);
    }
    statistics_.tail_found = statistics_.kept > 0;
    if (!statistics_.tail_found) {
      rule_.filtered = false;
      statistics_.kept = layer_.size;
    } else {
      statistics_.measure = statistics_.length = squares;
    }
    if (layer_.scaled) sweep_ = Sweep::Measure;
  }

  /// Sets the threshold if the window can be shown to hold it; else prepares another way and returns false.
  bool threshold_from(int64_t plateau, int64_t above, Worker& worker) {
    int64_t listed = 0;
    bool full = false;
    for (const Part& part : parts_) {
      listed += part.inside;
      full = full || part.inside > inside_room_;
    }
    const int64_t rank = rank_from_top() - above;
    if (!full && rank >= 0 && rank < listed + plateau) {
      const N threshold = rule_.threshold = select_listed(listed, plateau, rank, worker);
      // The window lies around another centre than the mean: its edges count only as far as that is certain.
      const double shift = std::fabs(static_cast<double>(rule_.mean) - static_cast<double>(window_.centre));
      const double low = window_.low < N{0} ? -1.0 : (static_cast<double>(window_.low) + shift) * (1.0 + 1e-6);
      const double high = (static_cast<double>(window_.high) - shift) * (1.0 - 1e-6);
      if (static_cast<double>(threshold) > low && static_cast<double>(threshold) < high) return true;
    }
    if (++attempt_ < kAttempts) {
      begin_window(worker, true, rule_.mean);
    } else {
      rule_.threshold = select_exactly(rank_from_top(), worker);
      rule_.filtered = true;
      sweep_ = Sweep::Measure;
    }
    return false;
  }

  /// Distances of the listed components in (low, high]; returns how many, and adds up those above.
  int64_t listed_distances(N low, N high, N* keys, int64_t& above) {
    int64_t found = 0;
    for (int64_t piece = 0; piece < pieces_; ++piece)
      found += lists_->distances_between(inside_of(piece), parts_[static_cast<size_t>(piece)].inside, rule_.mean, low, high,
                                         keys + found, above);
    return found;
  }

  /// Where `rank` among the listed components will be found, by some of them.
  void guess_bracket(int64_t listed, int64_t rank, N& low, N& high) {
    constexpr int64_t kSome = 128;
    N some[kSome];
    int64_t piece = 0, before = 0;
    for (int64_t i = 0; i < kSome; ++i) {
      const int64_t at = i * listed / kSome;
      while (at - before >= parts_[static_cast<size_t>(piece)].inside) before += parts_[static_cast<size_t>(piece++)].inside;
      some[i] = std::fabs(inside_of(piece)[at - before] - rule_.mean);
    }
    bracket_of(some, kSome, static_cast<double>(rank) / static_cast<double>(listed), low, high);
  }

  N select_listed(int64_t listed, int64_t plateau, int64_t rank, Worker& worker) {
    N* keys = worker.keys.room_for<N>(listed + kBlockRoom);
    const N level = std::fabs(window_.plateau - rule_.mean);
    int64_t above = 0;
    if (plateau > 0) {
      listed_distances(level, level, keys, above);
      if (rank >= above && rank < above + plateau) return level;
      if (rank >= above) rank -= plateau;
    }
    N low = -1, high = std::numeric_limits<N>::infinity();
    if (listed > kPiece / 8) guess_bracket(listed, rank, low, high);
    above = 0;
    int64_t found = listed_distances(low, high, keys, above);
    if (rank < above || rank >= above + found) {
      above = 0;
      found = listed_distances(-1, std::numeric_limits<N>::infinity(), keys, above);
    }
    return order_statistic(*lists_, keys, found, rank - above);
  }

  /// Without any assumption: halves the range of the values by histograms of their bits, until few are left.
  N select_exactly(int64_t rank, Worker& worker) const {
    constexpr int64_t kFits = kPiece;
    N* block = worker.keys.room_for<N>(2 * (kPiece + kBlockRoom));
    N* few = block + kPiece + kBlockRoom;
    Ordinal<N> low = -1, high = ordinal_of(std::numeric_limits<N>::infinity());
    int64_t inside = layer_.size;
    while (inside > kFits && high - low > 1) inside = narrow_by_histogram(low, high, rank, block);
    if (high - low <= 1) return number_at<N>(high);
    int64_t found = 0;
    for (int64_t piece = 0; piece < pieces_; ++piece)
      for (Runs run(*this, Pieces(layer_).span(piece)); run.left(); run.next()) {
        passes_->distances(gradient() + run.begin, run.size(), run.rule, block);
        found += lists_->between(block, run.size(), number_at<N>(low), number_at<N>(high), few + found);
      }
    return order_statistic(*lists_, few, found, rank);
  }

  /// Cuts (low, high] to the bin that holds the rank; returns how many values are in it.
  int64_t narrow_by_histogram(Ordinal<N>& low, Ordinal<N>& high, int64_t& rank, N* block) const {
    constexpr int kBins = 2048;
    int shift = 0;
    while (((high - low - 1) >> shift) >= kBins) ++shift;
    int64_t counts[kBins] = {};
    for (int64_t piece = 0; piece < pieces_; ++piece)
      for (Runs run(*this, Pieces(layer_).span(piece)); run.left(); run.next()) {
        passes_->distances(gradient() + run.begin, run.size(), run.rule, block);
        for (int64_t i = 0; i < run.size(); ++i) {
          const Ordinal<N> at = ordinal_of(block[i]);
          if (at > low && at <= high) ++counts[(at - low - 1) >> shift];
        }
      }
    int bin = kBins - 1;
    while (bin > 0 && rank >= counts[bin]) rank -= counts[bin--];
    const Ordinal<N> first = low + 1 + (static_cast<Ordinal<N>>(bin) << shift);
    const Ordinal<N> width = static_cast<Ordinal<N>>(1) << shift;
    high = high - first < width ? high : static_cast<Ordinal<N>>(first + width - 1);
    low = first - 1;
    return counts[bin];
  }

  const Passes<T>* passes_ = nullptr;
  const Passes<N>* lists_ = nullptr;
  Layer layer_;
  Rule<T> rule_;
  Sweep sweep_ = Sweep::None;
  int attempt_ = 0;
  std::vector<Part> parts_;
  std::vector<N> row_means_;
  Window<N> window_;
  Memory inside_;  ///< of every piece, the components in the window
  int64_t inside_room_ = 0;
};

}  // namespace steppe::kernels::cpu
