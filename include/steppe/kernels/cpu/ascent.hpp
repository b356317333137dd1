// A whole ascent over the layers of a model: measured together, moved together, on the caller's threads.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include <steppe/kernels/cpu/layer.hpp>
#include <steppe/kernels/cpu/layer_job.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Keeps its buffers from one ascent to the next, so that none is allocated when nothing has changed.
///
/// `Threads` has count(), and run(tasks, body), which calls body(task, thread) for every task, thread < count().
class Ascent {
 public:
  /// The first half: the statistics of every direction.
  template <class Threads>
  void measure(const std::vector<Layer>& layers, Threads&& threads) {
    prepare(layers, threads.count());
    split_.clear();
    whole_.clear();
    int64_t total = 0;
    for (const Layer& layer : layers) total += layer.size;
    const int64_t fair_share = total / (2 * threads.count());
    for (size_t i = 0; i < layers.size(); ++i) {
      const bool splits = threads.count() > 1 && layers[i].size > (std::max)(fair_share, kPiece);
      (splits ? split_ : whole_).push_back(i);
    }
    // The largest first, so that the threads finish together.
    std::sort(whole_.begin(), whole_.end(), [&](size_t a, size_t b) {
      return layers[a].size != layers[b].size ? layers[a].size > layers[b].size : a < b;
    });
    threads.run(static_cast<int64_t>(split_.size()),
                [&](int64_t k, int thread) { start(layers, split_[static_cast<size_t>(k)], thread); });
    for (bool first = true; first || sweeps_due(); first = false) {
      list_pieces(first);
      threads.run(static_cast<int64_t>(tasks_.size()),
                  [&](int64_t k, int thread) { carry_out(layers, tasks_[static_cast<size_t>(k)], thread); });
      threads.run(static_cast<int64_t>(split_.size()), [&](int64_t k, int thread) {
        LayerJob& job = *jobs_[split_[static_cast<size_t>(k)]];
        if (job.sweep_due()) job.settle(workers_[static_cast<size_t>(thread)]);
      });
    }
  }

  const Statistics& statistics(size_t layer) const { return jobs_[layer]->statistics(); }

  /// The second half: out = w + factor * u for every layer whose factor is not 0.
  template <class Threads>
  void ascend(const std::vector<Layer>& layers, const std::vector<double>& factors, Threads&& threads) {
    tasks_.clear();
    int64_t bytes = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (exact::is_zero(factors[i])) continue;
      bytes += layers[i].size * bytes_of(layers[i].format);
      for (int64_t piece = 0; piece < jobs_[i]->pieces(); ++piece) tasks_.push_back({i, piece});
    }
    threads.run(static_cast<int64_t>(tasks_.size()), [&](int64_t k, int) {
      const Task& task = tasks_[static_cast<size_t>(k)];
      const Layer& layer = layers[task.layer];
      const bool past_cache = bytes > kStreamed && layer.out != layer.direction && layer.out != layer.weights;
      jobs_[task.layer]->ascend(task.piece, factors[task.layer], past_cache);
    });
  }

  int64_t bytes() const {
    int64_t sum = 0;
    for (const auto& job : jobs_) sum += job->bytes();
    for (const Worker& worker : workers_) sum += worker.keys.bytes() + worker.list.bytes();
    return sum;
  }

 private:
  /// Weights of more bytes than this do not stay in the cache: non-temporal stores save a read.
  static constexpr int64_t kStreamed = int64_t{1} << 24;
  static constexpr int64_t kWhole = -1;

  struct Task {
    size_t layer;
    int64_t piece;  ///< or the whole layer, sweep after sweep
  };

  static std::unique_ptr<LayerJob> make_job(Format format) {
    switch (format) {
      case Format::Float64:
        return std::make_unique<LayerJobOf<double>>();
      case Format::BFloat16:
        return std::make_unique<LayerJobOf<BFloat16>>();
      case Format::Half:
        return std::make_unique<LayerJobOf<Half>>();
      case Format::Float32:
        break;
    }
    return std::make_unique<LayerJobOf<float>>();
  }

  void prepare(const std::vector<Layer>& layers, int threads) {
    if (workers_.size() < static_cast<size_t>(threads)) workers_.resize(static_cast<size_t>(threads));
    jobs_.resize(layers.size());
    formats_.resize(layers.size(), Format::Float32);
    for (size_t i = 0; i < layers.size(); ++i) {
      if (jobs_[i] && formats_[i] == layers[i].format) continue;
      jobs_[i] = make_job(layers[i].format);
      formats_[i] = layers[i].format;
    }
  }

  bool sweeps_due() const {
    return std::any_of(split_.begin(), split_.end(), [this](size_t i) { return jobs_[i]->sweep_due(); });
  }

  void list_pieces(bool with_whole_layers) {
    tasks_.clear();
    // The largest tasks first: pieces even out when the threads finish.
    if (with_whole_layers)
      for (const size_t i : whole_) tasks_.push_back({i, kWhole});
    for (const size_t i : split_)
      for (int64_t piece = 0; jobs_[i]->sweep_due() && piece < jobs_[i]->pieces(); ++piece)
        tasks_.push_back({i, piece});
  }

  void start(const std::vector<Layer>& layers, size_t layer, int thread) {
    jobs_[layer]->start(layers[layer], workers_[static_cast<size_t>(thread)]);
  }

  void carry_out(const std::vector<Layer>& layers, const Task& task, int thread) {
    LayerJob& job = *jobs_[task.layer];
    Worker& worker = workers_[static_cast<size_t>(thread)];
    if (task.piece != kWhole) return job.sweep(task.piece, worker);
    start(layers, task.layer, thread);
    while (job.sweep_due()) {
      for (int64_t piece = 0; piece < job.pieces(); ++piece) job.sweep(piece, worker);
      job.settle(worker);
    }
  }

  std::vector<std::unique_ptr<LayerJob>> jobs_;
  std::vector<Format> formats_;
  std::vector<Worker> workers_;
  std::vector<size_t> split_, whole_;
  std::vector<Task> tasks_;
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
