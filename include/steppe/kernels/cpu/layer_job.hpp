// The work on one layer: measure its direction in as few reads as the recipe allows, then move along it.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <steppe/kernels/cpu/filter_bounds.hpp>
#include <steppe/kernels/cpu/histogram_selection.hpp>
#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/kernels/cpu/layer.hpp>
#include <steppe/kernels/cpu/memory.hpp>
#include <steppe/kernels/cpu/sample.hpp>
#include <steppe/kernels/cpu/window_lists.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Scratch of one thread.
struct Worker {
  Memory keys, list;
};

/// Measuring is a few sweeps over the layer. The pieces of a sweep are independent; settle() ends it and determines the
/// next. Sums are added in the order of the pieces: the same bits for any number of threads.
class LayerJob {
 public:
  virtual ~LayerJob() = default;
  /// Begins a layer; afterwards the first sweep is due.
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
    pieces_ = pieces_of(layer).count();
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
    if (layer.size == 0) sweep_ = Sweep::Nothing;
  }

  bool sweep_due() const override { return sweep_ != Sweep::Nothing; }

  void sweep(int64_t piece, Worker& worker) override {
    Part& part = parts_[static_cast<size_t>(piece)];
    const Span span = pieces_of(layer_).span(piece);
    switch (sweep_) {
      case Sweep::Rows:
        return sweep_rows(span, part);
      case Sweep::Sums:
        return sweep_sums(span, part);
      case Sweep::Window:
        return sweep_window(span, piece, worker);
      case Sweep::Measure:
        return sweep_measure(span, part);
      case Sweep::Nothing:
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
      case Sweep::Nothing:
        return;
    }
  }

  void ascend(int64_t piece, double factor, bool past_cache) const override {
    const Span span = pieces_of(layer_).span(piece);
    for (Runs run(*this, span); run.left(); run.next())
      passes_->ascend(gradient() + run.begin, weights() + run.begin, static_cast<T*>(layer_.out) + run.begin,
                      run.size(), run.rule, static_cast<N>(factor), past_cache);
  }

  int64_t bytes() const override {
    return window_lists_.bytes() +
           static_cast<int64_t>(parts_.capacity() * sizeof(Part) + row_means_.capacity() * sizeof(N));
  }

 private:
  enum class Sweep {
    Nothing,
    Rows,     ///< sums of the rows
    Sums,     ///< sum and squares of the direction
    Window,   ///< the same, and the components around the threshold
    Measure,  ///< squares of the direction as known so far
  };

  /// What a piece contributes.
  struct Part {
    double sum = 0.0, squares = 0.0;
    Measured measured;
  };

  /// Below this many components everything is in the cache, and sampling would not pay.
  static constexpr int64_t kSampled = 1 << 15;
  static constexpr int kAttempts = 2;
  /// Half the width of the window in standard deviations of the sample's counts.
  static constexpr double kSigmas[kAttempts] = {3.5, 14.0};

  const T* gradient() const { return static_cast<const T*>(layer_.direction); }
  const T* weights() const { return static_cast<const T*>(layer_.weights); }

  /// The runs of a span that share one rule: the span itself, or its rows.
  struct Runs {
    Runs(const LayerJobOf& of_job, Span span) : job(of_job), begin(span.begin), last(span.end), rule(of_job.rule_) {
      enter();
    }
    bool left() const { return begin < last; }
    int64_t size() const { return end - begin; }
    void next() {
      begin = end;
      if (left()) enter();
    }
    void enter() {
      const int64_t row = job.layer_.row;
      end = row == 0 ? last : (std::min)(last, (begin / row + 1) * row);
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
    const bool cut = pieces_of(layer_).cut_rows();
    for (Runs run(*this, span); run.left(); run.next()) {
      double sum = 0.0, squares = 0.0;
      passes_->sums(gradient() + run.begin, run.size(), sum, squares);
      part.sum += sum;
      part.squares += squares;
      if (cut) continue;
      const int64_t n = run.size();
      const N mean = row_means_[static_cast<size_t>(run.begin / n)] = mean_of(sum, n);
      double about_mean = squares_about_mean(sum, squares, n);
      // Where nearly all cancels, and near the limits of the format, the rounded differences themselves are measured.
      if (!(about_mean > 1e-3 * squares) || squares < 1e-70 * static_cast<double>(n) || squares > 1e76) {
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
    const Pieces pieces = pieces_of(layer_);
    if (pieces.cut_rows()) {
      for (size_t r = 0; r < row_means_.size(); ++r) {
        double sum = 0.0;
        for (int64_t i = 0; i < pieces.per_row; ++i)
          sum += parts_[r * static_cast<size_t>(pieces.per_row) + static_cast<size_t>(i)].sum;
        row_means_[r] = mean_of(sum, layer_.row);
      }
    }
    if (layer_.filtered) return begin_direction(worker);
    statistics_.length = statistics_.measure;
    // In 16-bit formats the rounded differences are measured; rows that were cut are not measured yet.
    sweep_ = layer_.scaled || pieces.cut_rows() || sizeof(T) == 2 ? Sweep::Measure : Sweep::Nothing;
  }

  // ---- Directions that are not centralized, or already are

  void begin_direction(Worker& worker) {
    if (!layer_.filtered) {
      sweep_ = layer_.scaled ? Sweep::Measure : Sweep::Sums;
    } else if (layer_.size >= kSampled) {
      begin_window(nullptr, worker);
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

  /// Not optimized, as it is rare: the sum of centralized components is only rounding.
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
    sweep_ = Sweep::Nothing;
    if (!layer_.filtered) return;
    rule_.mean = mean_of(sum, layer_.size);
    sweep_ = Sweep::Measure;
    if (!std::isfinite(statistics_.gradient_squares) || !std::isfinite(rule_.mean)) return;  // nothing will move
    filter_by(select_exactly(worker));
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
    sweep_ = Sweep::Nothing;
    if (!layer_.filtered) return;
    statistics_.kept = all.kept;
    statistics_.tail_found = rule_.filtered && all.kept > 0;
    if (rule_.filtered && all.kept == 0) keep_everything();
  }

  /// A tensor without a tail keeps its direction, which has to be measured unfiltered.
  void keep_everything() {
    rule_.filtered = false;
    statistics_.kept = layer_.size;
    sweep_ = Sweep::Measure;
  }

  // ---- The threshold: an order statistic of |x - mean|

  void filter_by(N threshold) {
    rule_.bounds = filter_bounds<T>(rule_.mean, threshold);
    rule_.filtered = true;
  }

  /// The rank of the largest value that is not kept, in descending order.
  int64_t rank_from_top() const {
    const auto rank = static_cast<int64_t>(std::floor(layer_.quantile * static_cast<double>(layer_.size - 1)));
    return layer_.size - 1 - (std::min)(layer_.size - 1, rank);
  }

  void begin_window(N* known_mean, Worker& worker) {
    Sample<N> sample(*lists_, worker.keys.room_for<N>(Sample<N>::kRoom));
    sample.draw(gradient(), layer_.size, rule_.centralized ? row_means_.data() : nullptr, layer_.row);
    const N centre = known_mean != nullptr ? *known_mean : sample.mean();
    const Window<N> window = sample.window(centre, rank_from_top(), kSigmas[attempt_]);
    window_lists_.begin(*passes_, pieces_, window, sample.share_inside());
    sweep_ = Sweep::Window;
  }

  void sweep_window(Span span, int64_t piece, Worker& worker) {
    window_lists_.sweep(piece, worker.list, [&](Seen<N>& seen) {
      for (Runs run(*this, span); run.left(); run.next())
        passes_->window(gradient() + run.begin, run.size(), run.rule, window_lists_.window(), seen);
    });
  }

  void settle_window(Worker& worker) {
    window_lists_.settle();
    statistics_.measure = statistics_.length = window_lists_.squares();
    if (!rule_.centralized) statistics_.gradient_squares = statistics_.measure;
    sweep_ = Sweep::Nothing;
    if (!std::isfinite(statistics_.measure)) return;  // nothing will move
    rule_.mean = mean_of(window_lists_.sum(), layer_.size);
    N threshold = 0;
    if (!window_lists_.find(rank_from_top(), rule_.mean, worker.keys, threshold)) return select_otherwise(worker);
    filter_by(threshold);
    const double squares = window_lists_.kept_squares(rule_.bounds, statistics_.kept);
    statistics_.tail_found = statistics_.kept > 0;
    if (statistics_.tail_found) {
      statistics_.measure = statistics_.length = squares;
    } else {
      rule_.filtered = false;
      statistics_.kept = layer_.size;
    }
    if (layer_.scaled) sweep_ = Sweep::Measure;
  }

  /// A wider window about the mean, which is now known; after that, an exact search without one.
  void select_otherwise(Worker& worker) {
    if (++attempt_ < kAttempts) return begin_window(&rule_.mean, worker);
    filter_by(select_exactly(worker));
    sweep_ = Sweep::Measure;
  }

  N select_exactly(Worker& worker) const {
    const auto for_each_part = [this](N* block, auto&& visit) {
      for (int64_t piece = 0; piece < pieces_; ++piece)
        for (Runs run(*this, pieces_of(layer_).span(piece)); run.left(); run.next()) {
          passes_->distances(gradient() + run.begin, run.size(), run.rule, block);
          visit(run.size());
        }
    };
    HistogramSelection<N, decltype(for_each_part)> selection(*lists_, for_each_part, worker.keys);
    return selection.find(layer_.size, rank_from_top());
  }

  const Passes<T>* passes_ = nullptr;
  const Passes<N>* lists_ = nullptr;
  Layer layer_;
  Rule<T> rule_;
  Sweep sweep_ = Sweep::Nothing;
  int attempt_ = 0;
  std::vector<Part> parts_;
  std::vector<N> row_means_;
  WindowLists<T> window_lists_;
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
