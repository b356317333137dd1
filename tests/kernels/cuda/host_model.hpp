// A model in the host's memory, for kernels that run on the host.
// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>
#include <steppe/kernels/cuda/ascent.hpp>
#include <steppe/kernels/cuda/thread_sum.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "host_launch.hpp"
#include "model.hpp"

namespace steppe::kernels::cuda {

/// How the work is cut. Chunks and blocks are small, so that every boundary is met.
struct Cut {
  int threads = 8;
  int64_t chunk = 24, blocks = 3;
  int64_t offset = 0;   ///< of every layer's memory, in components
  int64_t sample = 64;  ///< that a filter's window is drawn from
  bool pairs = false;   ///< sums in pairs of floats, with 256 threads; with fewer the number of threads decides
};

/// The memory of a model, which may take several ascents.
template <class Launch = HostLaunch>
class HostModel {
 public:
  HostModel(const std::vector<Numbers>& model, const Cut& cut, uint64_t seed = 1)
      : model_(model), cut_(cut), seed_(seed), plan_(cut.chunk, cut.sample) {
    std::vector<Layer> layers;
    for (size_t i = 0; i < model.size(); ++i) {
      const auto where = static_cast<Destination>((i + seed) % static_cast<size_t>(Destination::kCount));
      memory_.push_back(std::make_unique<LayerMemory>(model[i], where, cut.offset, buffer_offset(cut.offset, i)));
      LayerMemory& memory = *memory_.back();
      Layer layer = model[i].layer;
      layer.direction = memory.g.bytes() + memory.g.begin();
      layer.weights = memory.w.bytes() + memory.w.begin();
      layer.out = memory.out().bytes() + memory.out().begin();
      layers.push_back(layer);
    }
    plan_.describe(layers);
    scratch_.resize(static_cast<size_t>(scratch_bytes(plan_)) / sizeof(Scratch) + 1);
    // Only the tickets and histograms, which come first, have to be zero.
    auto* const unset =
        reinterpret_cast<std::byte*>(work_of(plan_, plan_.table().data(), scratch_.data(), Results()).states);
    std::memset(unset, 0xff, static_cast<size_t>(scratch_.back().bytes + sizeof(Scratch) - unset));
  }

  Outcome ascend() {
    reset();
    Outcome outcome;
    const size_t n = model_.size();
    outcome.layer_gradient_norm.assign(n, -1.0);
    outcome.layer_perturbation_norm.assign(n, -1.0);
    outcome.layer_kept_share.assign(n, -1.0);
    const Results results{&outcome.gradient_norm,
                          &outcome.perturbation_norm,
                          &outcome.kept_share,
                          &outcome.finite,
                          outcome.layer_gradient_norm.data(),
                          outcome.layer_perturbation_norm.data(),
                          outcome.layer_kept_share.data()};
    const Work work = work_of(plan_, plan_.table().data(), scratch_.data(), results);
    EXPECT_TRUE(launch(work, typename Launch::ThreadCounts())) << "not compiled for " << cut_.threads << " threads";
    for (size_t i = 0; i < n; ++i) {
      outcome.moved.push_back(model_[i].layer.rho > 0.0 ? memory_[i]->out().numbers() : memory_[i]->w.numbers());
      EXPECT_TRUE(memory_[i]->out().guards_are_whole()) << "layer " << i;
    }
    return outcome;
  }

  int launches() const { return launches_; }
  /// Whether the threshold of the last ascent was searched among the listed components alone.
  bool listed(int64_t layer) {
    return work_of(plan_, plan_.table().data(), scratch_.data(), Results()).states[layer].listed;
  }
  /// What the last ascent drew from the sample.
  Window window(int64_t layer) {
    return work_of(plan_, plan_.table().data(), scratch_.data(), Results()).windows[layer];
  }

 private:
  struct alignas(32) Scratch {
    std::byte bytes[32];
  };

  void reset() {
    for (size_t i = 0; i < model_.size(); ++i) {
      LayerMemory& memory = *memory_[i];
      memory.g.assign(model_[i].g);
      memory.w.assign(model_[i].w);
    }
  }

  template <int... kThreads>
  bool launch(const Work& work, std::integer_sequence<int, kThreads...>) {
    return ((kThreads == cut_.threads && launch<kThreads>(work)) || ...);
  }
  template <int kThreads>
  bool launch(const Work& work) {
    Launch launcher(kThreads, cut_.blocks, seed_);
    constexpr bool kEither = kThreads == 256, kPairs = kThreads == 8 || kThreads == 32;
    const bool pairs = kEither ? cut_.pairs : kPairs;
    if constexpr (kEither || kPairs)
      if (pairs) launch_ascent<kThreads, FloatPairSum>(plan_, work, launcher);
    if constexpr (kEither || !kPairs)
      if (!pairs) launch_ascent<kThreads, DoubleSum>(plan_, work, launcher);
    launches_ = launcher.launches();
    return true;
  }

  std::vector<Numbers> model_;
  Cut cut_;
  uint64_t seed_;
  Plan plan_;
  std::vector<std::unique_ptr<LayerMemory>> memory_;
  std::vector<Scratch> scratch_;
  int launches_ = 0;
};

inline std::vector<Cut> every_cut() {
  return {{8, 24, 3, 0},      {4, 16, 1, 0},  {4, 7, 5, 1},   {32, 40, 2, 3},
          {16, 160, 2, 0},    {4, 136, 2, 0}, {8, 240, 2, 0}, {256, kChunk, 2, 0, 64, true},
          {256, kChunk, 2, 0}};
}

}  // namespace steppe::kernels::cuda
