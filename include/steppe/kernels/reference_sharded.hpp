// The ascent over parameters of which every process holds a part.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Tensor.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <steppe/kernels/dispatch_task.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/ops.hpp>
#include <steppe/kernels/reference.hpp>
#include <steppe/sharding.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace reference {

/// An order statistic of values that are distributed over several processes.
struct UnionRank {
  struct Part {
    at::Tensor values;   ///< float32 or float64, none of them negative
    int64_t weight = 1;  ///< each counts this many times
  };
  std::vector<Part> parts;  ///< of this process
  int64_t rank = 0;         ///< from 0, ascending, counted by weights
  at::Tensor value;         ///< the result; 0-dim, on the host
  int64_t above = 0;        ///< the weight of all larger ones
};

/// Finds them exactly, all at once, digit by digit of the values' bits: those of a non-negative float are ordered as
/// its value. Three sums of 2048 and twice 1024 counters each, or six where a value has 64 bits. `wide`: one has, on
/// some process.
inline void find_order_statistics(std::vector<UnionRank>& wanted, bool wide, const Sharding& sharding,
                                  c10::Device home) {
  if (wanted.empty()) return;
  const std::vector<int> digits = wide ? std::vector<int>{11, 11, 11, 10, 10, 10} : std::vector<int>{11, 10, 10};
  const int width = wide ? 63 : 31;  // the sign is 0
  const auto keys_of = [wide](const at::Tensor& values) {
    const at::Tensor flat = values.contiguous().flatten();
    return wide ? flat.to(at::kDouble).view(at::kLong) : flat.view(at::kInt).to(at::kLong);
  };
  const auto count = static_cast<int64_t>(wanted.size());
  std::vector<int64_t> prefix(wanted.size(), 0);
  int done = 0;
  for (const int bits : digits) {
    const int64_t bins = int64_t{1} << bits;
    at::Tensor counts = at::zeros({count, bins}, at::TensorOptions().dtype(at::kLong).device(home));
    for (int64_t k = 0; k < count; ++k)
      for (const UnionRank::Part& part : wanted[static_cast<size_t>(k)].parts) {
        at::Tensor keys = keys_of(part.values);
        if (done > 0)
          keys = keys.masked_select(keys.bitwise_right_shift(width - done) == prefix[static_cast<size_t>(k)]);
        if (keys.numel() == 0) continue;
        const at::Tensor digit = keys.bitwise_right_shift(width - done - bits).bitwise_and(bins - 1);
        counts[k] += digit.bincount({}, bins).to(home) * part.weight;
      }
    sharding.sum(counts);
    const at::Tensor seen = counts.cpu();
    for (int64_t k = 0; k < count; ++k) {
      UnionRank& each = wanted[static_cast<size_t>(k)];
      const int64_t* weight = seen.data_ptr<int64_t>() + k * bins;
      int64_t bin = 0;
      while (bin + 1 < bins && each.rank >= weight[bin]) each.rank -= weight[bin++];
      for (int64_t higher = bin + 1; higher < bins; ++higher) each.above += weight[higher];
      prefix[static_cast<size_t>(k)] = prefix[static_cast<size_t>(k)] << bits | bin;
    }
    done += bits;
  }
  for (size_t k = 0; k < wanted.size(); ++k) {
    const at::Tensor bits = at::full({1}, prefix[k], at::TensorOptions().dtype(wide ? at::kLong : at::kInt));
    wanted[k].value = bits.view(wide ? at::kDouble : at::kFloat)[0];
  }
}

/// Layers on their way through the recipe, each in parts.
class ShardedLayers {
 public:
  std::vector<Layer> layers;
  Measures seen;

  ShardedLayers(const std::vector<AscentTask>& tasks, const Sharding& sharding)
      : layers(tasks.size()), tasks_(tasks), sharding_(sharding), home_(tasks.front().param.device()) {
    for (size_t i = 0; i < tasks.size(); ++i) {
      const AscentTask& task = tasks[i];
      const Recipe::Filter& filter = task.recipe.filter;
      TORCH_CHECK(!task.direction.is_complex(), "steppe: sharded() is for real parameters, not for one of type ",
                  task.direction.scalar_type());
      TORCH_CHECK(
          !filter.on || (filter.selection == Selection::Percentile && filter.z_score == ZScore::Standard),
          "steppe: sharded() supports only a filter's percentile of the standard z-score; ZScoreFilter().energy() and "
          "z_score(Robust) need all processes' components in one place. Leave them out");
      layers[i].direction = task.direction;
      layers[i].gradient_norm = vector_norm(task.gradient.defined() ? task.gradient : task.direction, 2.0);
    }
    centralize();
    filter();
    for (size_t i = 0; i < tasks.size(); ++i) scale_and_measure(layers[i], tasks[i], sharding.dim(tasks[i].param));
    measure();
  }

 private:
  static at::TensorOptions numbers() { return at::TensorOptions().dtype(at::kDouble); }

  bool is_replicated(size_t i) const { return sharding_.is_replicated(tasks_[i].param); }

  /// Rows that are split over processes get the mean of the whole row.
  void centralize() {
    std::vector<size_t> cut;
    std::vector<at::Tensor> sums;
    for (size_t i = 0; i < tasks_.size(); ++i) {
      const auto& rule = tasks_[i].recipe.centralize;
      const at::Tensor& g = tasks_[i].direction;
      if (!rule.on || sharding_.dim(tasks_[i].param) < std::max<int64_t>(rule.min_dim, 2)) continue;
      const Shard* shard = sharding_.find(tasks_[i].param);
      if (shard == nullptr || shard->replicated) {
        const at::IntArrayRef sizes = shard == nullptr ? g.sizes() : at::IntArrayRef(shard->sizes);
        if (g.numel() > 0) layers[i].direction = reference::centralize(g.reshape(sizes)).reshape(g.sizes());
        continue;
      }
      cut.push_back(i);
      at::Tensor of_rows = at::zeros({shard->sizes.front()}, numbers().device(g.device()));
      if (g.numel() > 0) of_rows.index_add_(0, rows_of(*shard, g), g.flatten().to(at::kDouble));
      sums.push_back(of_rows.to(home_));
    }
    if (cut.empty()) return;
    at::Tensor all = at::cat(sums);
    sharding_.sum(all);
    int64_t from = 0;
    for (const size_t i : cut) {
      const Shard& shard = *sharding_.find(tasks_[i].param);
      const at::Tensor& g = tasks_[i].direction;
      const int64_t rows = shard.sizes.front();
      const at::Tensor means = all.narrow(0, from, rows) / row_length(shard);
      from += rows;
      if (g.numel() == 0) continue;
      const at::Tensor mean = means.to(g.device()).to(g.scalar_type()).index_select(0, rows_of(shard, g));
      layers[i].direction = g - mean.reshape(g.sizes());
    }
  }
  static double row_length(const Shard& shard) {
    double length = 1.0;
    for (size_t d = 1; d < shard.sizes.size(); ++d) length *= static_cast<double>(shard.sizes[d]);
    return length;
  }
  static at::Tensor rows_of(const Shard& shard, const at::Tensor& part) {
    const at::Tensor place = at::arange(shard.offset, shard.offset + part.numel(),
                                        at::TensorOptions().dtype(at::kLong).device(part.device()));
    return place.floor_divide(at::full({}, static_cast<int64_t>(row_length(shard)), place.options()));
  }

  void filter() {
    std::vector<size_t> members;
    for (size_t i = 0; i < tasks_.size(); ++i) {
      const Recipe::Filter& rule = tasks_[i].recipe.filter;
      if (rule.on && sharding_.dim(tasks_[i].param) >= rule.min_dim) members.push_back(i);
    }
    if (members.empty()) return;
    const at::Tensor moments = moments_of(members);
    const auto processes = static_cast<int64_t>(std::llround(sharding_.processes()));

    std::vector<UnionRank> wanted;
    std::vector<size_t> filtered, asked(tasks_.size(), 0), joint;  // joint: one for each level of the joint threshold
    std::vector<at::Tensor> distances(tasks_.size());
    std::vector<double> levels, sizes;  // beside wanted
    bool wide = false;
    for (size_t k = 0; k < members.size(); ++k) {
      const size_t i = members[k];
      const double* of_layer = moments.data_ptr<double>() + 3 * k;
      const double n = std::round(of_layer[0]);
      if (n <= 2.0) continue;
      filtered.push_back(i);
      const bool jointly = tasks_[i].recipe.filter.threshold == Threshold::Global;
      distances[i] = distance_of(layers[i].direction, n, of_layer[1], of_layer[2], jointly);
      wide = wide || distances[i].scalar_type() == at::kDouble;
      const double level = tasks_[i].recipe.filter.level;
      size_t one = wanted.size();
      for (const size_t j : joint)
        if (jointly && kernels::exact::are_equal(levels[j], level)) one = j;
      if (one == wanted.size()) {
        wanted.emplace_back();
        levels.push_back(level);
        sizes.push_back(0.0);
        if (jointly) joint.push_back(one);
      }
      asked[i] = one;
      if (!jointly) {
        wanted[one].parts.push_back(part_of(i, distances[i], processes));
        sizes[one] = n;
      }
    }
    for (const size_t j : joint)
      for (size_t k = 0; k < members.size(); ++k) {
        const size_t i = members[k];
        if (!distances[i].defined() || tasks_[i].recipe.filter.threshold != Threshold::Global) continue;
        wanted[j].parts.push_back(part_of(i, distances[i], processes));
        sizes[j] += std::round(moments.data_ptr<double>()[3 * k]);
      }
    for (size_t j = 0; j < wanted.size(); ++j)
      wanted[j].rank = processes * quantile_rank(levels[j], static_cast<int64_t>(sizes[j]));
    find_order_statistics(wanted, wide, sharding_, home_);

    bool any_tail = false;
    for (const size_t i : filtered)
      any_tail = any_tail || (tasks_[i].recipe.filter.threshold != Threshold::Global && wanted[asked[i]].above > 0);
    for (const size_t i : filtered) {
      const Recipe::Filter& rule = tasks_[i].recipe.filter;
      const UnionRank& answer = wanted[asked[i]];
      const bool has_tail = answer.above > 0;
      const bool whole = rule.threshold != Threshold::Global && rule.empty_tail == EmptyTail::Whole;
      const at::Tensor& distance = distances[i];
      const at::TensorOptions flag = at::TensorOptions().dtype(at::kBool).device(distance.device());
      apply_mask(layers[i], distance > answer.value.to(distance.scalar_type()).to(distance.device()),
                 at::full({}, !(whole ? any_tail : has_tail), flag));
      layers[i].tail_found = at::full({}, has_tail, flag);
    }
  }

  /// Number, sum and sum of squares of each member's components, over all processes; on the host.
  at::Tensor moments_of(const std::vector<size_t>& members) const {
    std::vector<at::Tensor> told;
    for (const size_t i : members) {
      const at::Tensor x = layers[i].direction.to(at::kDouble);
      const at::Tensor size = at::full({}, static_cast<double>(x.numel()), x.options());
      told.push_back(at::stack({size, x.sum(), x.square().sum()}).to(home_));
      if (is_replicated(i)) told.back().div_(sharding_.processes());
    }
    at::Tensor all = at::stack(told);
    sharding_.sum(all);
    return all.cpu().contiguous();
  }

  /// |x - mean| in the dtype of x, float32 for 16 bits; |z| in float64 where layers are compared.
  static at::Tensor distance_of(const at::Tensor& x, double n, double sum, double squares, bool compared) {
    const double mean = sum / n;
    const at::Tensor location = at::full({}, mean, numbers()).to(x.scalar_type()).to(x.device());
    const at::Tensor distance = (x - location).abs();
    if (!compared) return x.element_size() == 2 ? distance.to(at::kFloat) : distance;
    const double variance = (std::max)((squares - n * mean * mean) / (n - 1.0), 0.0);
    return distance.to(at::kDouble) / (std::sqrt(variance) + 1e-12);
  }

  /// What every process holds would count several times: everything else gets that weight.
  UnionRank::Part part_of(size_t i, const at::Tensor& values, int64_t processes) const {
    return {values, is_replicated(i) ? 1 : processes};
  }

  void measure() {
    const double p = tasks_.front().recipe.p;
    const double q = std::isinf(p) ? 1.0 : p / (p - 1.0);
    std::vector<at::Tensor> told;
    for (size_t i = 0; i < tasks_.size(); ++i) {
      const Layer& layer = layers[i];
      const at::Tensor kept = layer.kept.defined() ? layer.kept : at::zeros_like(layer.measure);
      const at::Tensor size = at::full({}, static_cast<double>(tasks_[i].direction.numel()), layer.measure.options());
      told.push_back(
          at::stack({layer.gradient_norm.square(), layer.measure.pow(q), layer.length.square(), kept, size}).to(home_));
      if (is_replicated(i)) told.back().div_(sharding_.processes());
    }
    at::Tensor all = at::stack(told);
    sharding_.sum(all);
    seen.raw = all.select(1, 0).sqrt();
    seen.direction = all.select(1, 1).pow(1.0 / q);
    seen.length = all.select(1, 2).sqrt();
    const at::Tensor sizes = all.select(1, 4).cpu().contiguous();
    for (size_t i = 0; i < tasks_.size(); ++i) {
      seen.sizes.push_back(std::round(sizes.data_ptr<double>()[i]));
      if (layers[i].kept.defined()) layers[i].kept = all[static_cast<int64_t>(i)][3];
    }
  }

  const std::vector<AscentTask>& tasks_;
  const Sharding& sharding_;
  const c10::Device home_;
};

/// The same as ascend() over the whole parameters. Every process has the same tasks.
inline AscentResult ascend(std::vector<AscentTask>& tasks, const Sharding& sharding) {
  const c10::NoGradGuard no_grad;
  const ShardedLayers sharded(tasks, sharding);
  return move(tasks, sharded.layers, sharded.seen);
}

}  // namespace reference
STEPPE_NAMESPACE_END
