// The definition of the ascent in ATen operations, for every device and dtype.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Tensor.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <tuple>
#include <vector>

#include <steppe/kernels/dispatch_task.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/ops.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

namespace reference {

inline at::ScalarType accumulation_type(const at::Tensor& x) {
  return x.is_complex() ? at::kComplexDouble : at::kDouble;
}

/// |x|_order over all elements, accumulated in double; 0-dim float64.
inline at::Tensor vector_norm(const at::Tensor& x, double order) {
  // LibTorch 1.13 rounds other orders to float, and sums 16-bit numbers in less than double.
  if (!kernels::exact::are_equal(order, 1.0) && !kernels::exact::are_equal(order, 2.0))
    return x.to(accumulation_type(x)).abs().pow(order).sum().pow(1.0 / order);
  if (x.element_size() == 2) return at::linalg_vector_norm(x.to(at::kDouble), order);
  return at::linalg_vector_norm(x, order, at::OptionalIntArrayRef{}, false, accumulation_type(x));
}

/// The element of rank `rank` (from 0, ascending); 0-dim. half and bfloat16 come back as float32, exactly.
inline at::Tensor order_statistic(const at::Tensor& x, int64_t rank) {
  const bool reduced = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
  return std::get<0>((reduced ? x.to(at::kFloat) : x).flatten().kthvalue(rank + 1));
}

/// The zero-based rank from which the q quantile of n values interpolates upwards.
///
/// A value exceeds the linearly interpolated quantile exactly if it exceeds the order statistic of this rank: the
/// quantile lies in [x_rank, x_rank+1), so interpolating is not needed.
inline int64_t quantile_rank(double q, int64_t n) {
  return (std::min)(n - 1, static_cast<int64_t>(std::floor(q * static_cast<double>(n - 1))));
}

/// g minus its mean over all dimensions but the first, the mean accumulated in double and rounded once (2004.01461).
inline at::Tensor centralize(const at::Tensor& g) {
  std::vector<int64_t> dims(static_cast<size_t>(g.dim() - 1));
  std::iota(dims.begin(), dims.end(), 1);
  return g - g.mean(dims, /*keepdim=*/true, accumulation_type(g)).to(g.scalar_type());
}

/// The middle value, or the mean of the two middle values rounded to the dtype of x.
inline at::Tensor middle_value(const at::Tensor& x) {
  const int64_t n = x.numel();
  const at::Tensor upper = order_statistic(x, n / 2).to(at::kDouble);
  const at::Tensor lower = n % 2 == 0 ? order_statistic(x, n / 2 - 1).to(at::kDouble) : upper;
  return ((lower + upper) / 2).to(x.scalar_type());
}

/// |x - location| in the dtype of x, where the location is the mean (accumulated in double, rounded once) or the
/// median.
inline at::Tensor deviation(const at::Tensor& x, ZScore kind) {
  if (kind == ZScore::Robust) {
    TORCH_CHECK(!x.is_complex(),
                "steppe: the robust z-score needs an order, which complex gradients do not have; "
                "use ZScore::Standard for this parameter group");
    return (x - middle_value(x)).abs();
  }
  return (x - x.mean(accumulation_type(x)).to(x.scalar_type())).abs();
}

/// |z| in float64: the deviation over the spread + 1e-12.
inline at::Tensor absolute_z_score(const at::Tensor& x, ZScore kind) {
  const at::Tensor distance = deviation(x, kind);
  const at::Tensor spread = kind == ZScore::Robust ? middle_value(distance).to(at::kDouble) * 1.4826
                                                   : x.to(accumulation_type(x)).std(/*unbiased=*/true);
  return distance.to(at::kDouble) / (spread + 1e-12);
}

/// |x| from the cut on, where the cut closes the smallest set holding `share` of the squared norm; ties with it stay.
inline at::Tensor energy_mask(const at::Tensor& x, double share) {
  const at::Tensor size = x.abs();
  const at::Tensor sorted = std::get<0>(size.flatten().to(at::kDouble).sort(0, /*descending=*/true));
  const at::Tensor energy = sorted.square().cumsum(0);
  const at::Tensor last = (energy < energy[-1] * share).sum().clamp_max(sorted.numel() - 1);
  return size.to(at::kDouble) >= sorted.index_select(0, last.reshape({1}));
}

/// True on the tail of one tensor: strictly above the quantile of |z|, or the set of highest energy.
inline at::Tensor tail_mask(const at::Tensor& x, const Recipe::Filter& filter) {
  if (filter.selection == Selection::Energy) return energy_mask(x, filter.level);
  const at::Tensor distance = deviation(x, filter.z_score);
  return distance > order_statistic(distance, quantile_rank(filter.level, distance.numel()));
}

/// A tensor on its way through the recipe.
struct Layer {
  at::Tensor direction;      ///< u in e = scale * u
  at::Tensor gradient_norm;  ///< |g|, of the input
  at::Tensor measure;        ///< |T d|_q, the part of the global norm
  at::Tensor length;         ///< |u|
  at::Tensor kept;           ///< number of components kept by the filter; undefined without a filter
  at::Tensor tail_found;     ///< bool: the filter kept something; undefined without a filter
};

inline bool is_filtered(const AscentTask& task) {
  const auto& filter = task.recipe.filter;
  return filter.on && task.direction.dim() >= filter.min_dim && task.direction.numel() > 2;
}

/// Zeroes what the mask leaves out, unless it leaves out everything.
inline void apply_mask(Layer& layer, const at::Tensor& mask, const at::Tensor& keep_all) {
  const at::Tensor kept = mask.logical_or(keep_all);
  layer.direction = layer.direction.masked_fill(kept.logical_not(), 0);
  layer.kept = kept.sum().to(at::kDouble);
}

/// Tensors whose thresholds are taken over all of them together: the tail of the joint |z|.
inline void filter_jointly(std::vector<Layer>& layers, const std::vector<AscentTask>& tasks,
                           const std::vector<size_t>& members) {
  if (members.empty()) return;
  const c10::Device home = layers[members.front()].direction.device();
  std::vector<at::Tensor> scores, joint;
  for (const size_t i : members) {
    scores.push_back(absolute_z_score(layers[i].direction, tasks[i].recipe.filter.z_score));
    joint.push_back(scores.back().flatten().to(home));
  }
  const at::Tensor all = at::cat(joint);
  double level = -1.0;
  at::Tensor threshold, nothing_found;
  for (size_t k = 0; k < members.size(); ++k) {
    Layer& layer = layers[members[k]];
    if (const double wanted = tasks[members[k]].recipe.filter.level; !kernels::exact::are_equal(wanted, level)) {
      level = wanted;
      threshold = order_statistic(all, quantile_rank(level, all.numel()));
      nothing_found = (all > threshold).any().logical_not();
    }
    const c10::Device device = layer.direction.device();
    apply_mask(layer, scores[k] > threshold.to(device), nothing_found.to(device));
    layer.tail_found = nothing_found.logical_not().to(device);
  }
}

inline void filter(std::vector<Layer>& layers, const std::vector<AscentTask>& tasks) {
  std::vector<size_t> jointly, singly;
  std::vector<at::Tensor> masks(tasks.size());
  at::Tensor any_tail;
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (!is_filtered(tasks[i])) continue;
    if (tasks[i].recipe.filter.threshold == Threshold::Global) {
      jointly.push_back(i);
      continue;
    }
    singly.push_back(i);
    masks[i] = tail_mask(layers[i].direction, tasks[i].recipe.filter);
    layers[i].tail_found = masks[i].any();
    any_tail =
        any_tail.defined() ? any_tail.logical_or(layers[i].tail_found.to(any_tail.device())) : layers[i].tail_found;
  }
  for (const size_t i : singly) {
    const bool whole = tasks[i].recipe.filter.empty_tail == EmptyTail::Whole;
    const at::Tensor found = whole ? any_tail.to(masks[i].device()) : layers[i].tail_found;
    apply_mask(layers[i], masks[i], found.logical_not());
  }
  filter_jointly(layers, tasks, jointly);
}

inline bool is_scaled(const AscentTask& task, int64_t dim) {
  const auto& scale = task.recipe.scale;
  if (!scale.on) return false;
  return scale.convention == ScaleConvention::Davda54 || dim >= 2 || task.norm_gain || (dim == 1 && scale.vectors);
}
inline bool is_scaled(const AscentTask& task) { return is_scaled(task, task.param.dim()); }

/// The maximizer of <d, e> over |T^-1 e|_p <= 1, up to its norm: u = T sgn(Td) |Td|^(q-1), 1/p + 1/q = 1.
inline void scale_and_measure(Layer& layer, const AscentTask& task, int64_t dim) {
  at::Tensor size;
  if (is_scaled(task, dim)) {
    const bool paper = task.recipe.scale.convention == ScaleConvention::Paper;
    size = paper ? task.param.detach().abs() + task.recipe.scale.eta : task.param.detach().abs();
    layer.direction = layer.direction * size;
  }
  const double p = task.recipe.p;
  if (kernels::exact::are_equal(p, 2.0)) {
    const bool known = layer.direction.is_same(task.direction) && !task.gradient.defined();
    layer.measure = known ? layer.gradient_norm : vector_norm(layer.direction, 2.0);
  } else {
    const double q = std::isinf(p) ? 1.0 : p / (p - 1.0);
    layer.measure = vector_norm(layer.direction, q);
    layer.direction = layer.direction.sgn() * layer.direction.abs().pow(q - 1.0);
  }
  if (size.defined()) layer.direction = layer.direction * size;
  layer.length =
      kernels::exact::are_equal(p, 2.0) && !size.defined() ? layer.measure : vector_norm(layer.direction, 2.0);
}

/// Steps 1 and 2 of an ascent: every direction and its measures.
inline std::vector<Layer> layers_of(const std::vector<AscentTask>& tasks) {
  std::vector<Layer> layers(tasks.size());
  for (size_t i = 0; i < tasks.size(); ++i) {
    const at::Tensor& g = tasks[i].direction;
    layers[i].gradient_norm = vector_norm(tasks[i].gradient.defined() ? tasks[i].gradient : g, 2.0);
    const auto& rule = tasks[i].recipe.centralize;
    layers[i].direction = rule.on && g.dim() >= std::max<int64_t>(rule.min_dim, 2) && g.numel() > 0 ? centralize(g) : g;
  }
  filter(layers, tasks);
  for (size_t i = 0; i < tasks.size(); ++i) scale_and_measure(layers[i], tasks[i], tasks[i].param.dim());
  return layers;
}

/// One field of every layer as a 1-D tensor on one device.
inline at::Tensor gather(const std::vector<Layer>& layers, at::Tensor Layer::*field) {
  const c10::Device home = (layers.front().*field).device();
  std::vector<at::Tensor> values;
  for (const Layer& layer : layers) values.push_back((layer.*field).to(home));
  return at::stack(values);
}

/// A 1-D tensor of host values on the device of the given one, of its type. Nothing is copied from the host: a copy
/// would wait for the device, or read memory that is gone when a graph is replayed.
inline at::Tensor beside(const at::Tensor& like, const std::vector<double>& values) {
  std::vector<at::Tensor> runs;
  for (auto from = values.begin(); from != values.end();) {
    const double value = *from;
    const auto to =
        std::find_if(from, values.end(), [value](double other) { return !kernels::exact::are_equal(other, value); });
    runs.push_back(at::full({to - from}, value, like.options()));
    from = to;
  }
  return runs.size() == 1 ? runs.front() : at::cat(runs);
}

/// The factor of every layer's direction, before the guard against norms that are zero or not finite.
inline at::Tensor divisors(const std::vector<Layer>& layers, const std::vector<AscentTask>& tasks,
                           const at::Tensor& measure, const at::Tensor& direction_norm, const at::Tensor& raw_norm) {
  std::vector<at::Tensor> divisor;
  for (size_t i = 0; i < tasks.size(); ++i) {
    const Recipe& recipe = tasks[i].recipe;
    const double p = recipe.p;
    const double power = std::isinf(p) ? 0.0 : 1.0 / (p - 1.0);  // q / p
    at::Tensor norm = recipe.norm == Norm::Direction ? direction_norm : raw_norm;
    if (recipe.norm == Norm::PerTensor && layers[i].tail_found.defined())
      norm = at::where(layers[i].tail_found.to(norm.device()), measure[static_cast<int64_t>(i)] + 1e-12, norm);
    // A zero norm stays zero under the power 0, so that the guard detects it.
    divisor.push_back(kernels::exact::are_equal(p, 2.0) ? norm : norm.pow(power) * (norm > 0));
  }
  return at::stack(divisor);
}

/// What rho is multiplied by for each task, given its divisor.
inline at::Tensor radius_shapes(const std::vector<AscentTask>& tasks, const at::Tensor& divisor) {
  std::vector<at::Tensor> shapes;
  for (size_t i = 0; i < tasks.size(); ++i) {
    const Recipe::Radius& radius = tasks[i].recipe.radius;
    const at::Tensor norm = divisor[static_cast<int64_t>(i)];
    if (radius.rule == RadiusRule::Unified)
      shapes.push_back(norm * (1.0 - radius.share) + radius.share);
    else if (radius.rule == RadiusRule::Inverse)
      shapes.push_back((radius.sigma / (norm + radius.delta) / tasks[i].rho).clamp_max(1.0));
    else
      shapes.push_back(at::ones_like(norm));
  }
  return at::stack(shapes);
}

inline at::Tensor shares(const std::vector<Layer>& layers, const std::vector<double>& sizes, const at::Tensor& like,
                         at::Tensor& total) {
  std::vector<at::Tensor> share;
  at::Tensor kept;
  double seen = 0.0;
  const at::Tensor one = at::ones({}, like.options());
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!layers[i].kept.defined()) {
      share.push_back(one);
      continue;
    }
    const at::Tensor count = layers[i].kept.to(like.device());
    share.push_back(count / sizes[i]);
    kept = kept.defined() ? kept + count : count;
    seen += sizes[i];
  }
  total = kept.defined() ? kept / seen : one;
  return at::stack(share);
}

/// The largest number by which a direction of the dtype can be multiplied. A norm so small that rho / N is beyond it
/// counts as zero.
inline double largest_factor(at::ScalarType dtype) {
  return dtype == at::kDouble || dtype == at::kComplexDouble ? (std::numeric_limits<double>::max)()
                                                             : static_cast<double>((std::numeric_limits<float>::max)());
}

/// The norms of all layers: one number of each layer, on one device.
struct Measures {
  at::Tensor direction;  ///< |T d|_q
  at::Tensor raw;        ///< |g|
  at::Tensor length;     ///< |u|
  std::vector<double> sizes;
};

/// w + e for every task along its layer's direction.
inline AscentResult move(std::vector<AscentTask>& tasks, const std::vector<Layer>& layers, const Measures& seen) {
  const at::Tensor& measure = seen.direction;
  const at::Tensor& raw = seen.raw;
  std::vector<double> rho, counted, largest;
  for (const AscentTask& task : tasks) {
    rho.push_back(task.rho);
    largest.push_back(largest_factor(task.param.scalar_type()));
    counted.push_back(task.in_norm || task.rho > 0.0 ? 1.0 : 0.0);
  }
  const at::Tensor in_norm = beside(measure, counted) > 0;
  const double p = tasks.front().recipe.p;
  const double q = std::isinf(p) ? 1.0 : p / (p - 1.0);
  const at::Tensor direction_norm = vector_norm(measure.masked_fill(in_norm.logical_not(), 0), q);
  const at::Tensor raw_norm = vector_norm(raw.masked_fill(in_norm.logical_not(), 0), 2.0);

  AscentResult result;
  result.finite = direction_norm.isfinite().logical_and(raw_norm.isfinite());
  const at::Tensor divisor = divisors(layers, tasks, measure, direction_norm, raw_norm);
  at::Tensor factor = beside(measure, rho) / divisor;
  if (std::any_of(tasks.begin(), tasks.end(),
                  [](const AscentTask& task) { return task.recipe.radius.rule != RadiusRule::Constant; }))
    factor = factor * radius_shapes(tasks, divisor);
  const at::Tensor still =
      (divisor > 0).logical_and(result.finite).logical_and(factor <= beside(measure, largest)).logical_not();
  const at::Tensor scale = factor.masked_fill(still, 0);

  for (size_t i = 0; i < tasks.size(); ++i) {
    if (kernels::exact::is_zero(tasks[i].rho)) continue;
    const at::Tensor w = tasks[i].param.detach();
    const auto index = static_cast<int64_t>(i);
    const at::Tensor& u = layers[i].direction;
    // 16-bit directions are multiplied in float: LibTorch 1.13 would round the factor to 16 bits too. A direction
    // without dimensions would take the factor's type.
    const at::ScalarType type = u.element_size() == 2 ? at::kFloat : u.scalar_type();
    at::Tensor e = (u.to(type) * scale[index].to(w.device(), type)).to(u.scalar_type());
    if (tasks[i].recipe.against) e.neg_();
    e.masked_fill_(still[index].to(w.device()), 0);  // 0 * Inf is NaN
    if (tasks[i].destination.is_same(tasks[i].param))
      w.add_(e);
    else
      at::add_out(tasks[i].destination, w, e);
    tasks[i].moved = true;
  }

  result.gradient_norm = raw_norm;
  result.layer_gradient_norm = raw;
  result.layer_perturbation_norm = (seen.length * scale).masked_fill(still, 0);
  result.perturbation_norm = vector_norm(result.layer_perturbation_norm, 2.0);
  result.layer_kept_share = shares(layers, seen.sizes, measure, result.kept_share);
  return result;
}

/// w + e for every task, e = rho * u / N; nothing moves if N is zero or not finite.
///
/// The decision is made on the device, without a host synchronization. Tasks must not be empty.
inline AscentResult ascend(std::vector<AscentTask>& tasks) {
  const c10::NoGradGuard no_grad;
  const std::vector<Layer> layers = layers_of(tasks);
  Measures seen;
  seen.direction = gather(layers, &Layer::measure);
  seen.raw = gather(layers, &Layer::gradient_norm);
  seen.length = gather(layers, &Layer::length);
  for (const AscentTask& task : tasks) seen.sizes.push_back(static_cast<double>(task.direction.numel()));
  return move(tasks, layers, seen);
}

}  // namespace reference
STEPPE_NAMESPACE_END
