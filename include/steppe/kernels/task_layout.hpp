// How a task is described to the kernels: its memory in order, and what the recipe does with it.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/layer.hpp>
#include <steppe/kernels/reference.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::detail {

inline bool format_of(at::ScalarType dtype, Format& format) {
  switch (dtype) {
    case at::kFloat:
      format = Format::Float32;
      return true;
    case at::kDouble:
      format = Format::Float64;
      return true;
    case at::kBFloat16:
      format = Format::BFloat16;
      return true;
    case at::kHalf:
      format = Format::Half;
      return true;
    default:
      return false;
  }
}

/// What the fused kernels cover, whatever the device; all else is computed by the definition.
inline bool has_fused_recipe(const AscentTask& task) {
  const Recipe& recipe = task.recipe;
  const bool plain_filter = !recipe.filter.on || (recipe.filter.selection == Selection::Percentile &&
                                                  recipe.filter.z_score == ZScore::Standard &&
                                                  recipe.filter.threshold == Threshold::PerTensor);
  return task.fused && plain_filter && !task.gradient.defined() && exact::are_equal(recipe.p, 2.0) &&
         exact::are_equal(task.direction.scalar_type(), task.param.scalar_type());
}

/// Whether the rows of the first dimension are consecutive in memory.
inline bool has_whole_rows(const at::Tensor& x) {
  return x.dim() < 2 || x.size(0) <= 1 || x.stride(0) == x.numel() / x.size(0);
}

/// Strides of dimensions with one element are ignored.
inline bool same_memory_order(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || !a.is_non_overlapping_and_dense()) return false;
  for (int64_t d = 0; d < a.dim(); ++d)
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  return true;
}

/// Contiguous copies of a parameter whose own memory the kernels cannot traverse.
struct Detour {
  size_t task;
  at::Tensor weights, direction, out;
};

/// Sets the fields of a layer except the pointers. The task's dtype must have a format.
inline void describe(const AscentTask& task, Layer& layer) {
  format_of(task.param.scalar_type(), layer.format);
  layer.size = task.param.numel();
  const auto& centralize = task.recipe.centralize;
  if (centralize.on && task.direction.dim() >= std::max<int64_t>(centralize.min_dim, 2) && layer.size > 0)
    layer.row = layer.size / task.direction.size(0);
  layer.filtered = reference::is_filtered(task);
  layer.quantile = task.recipe.filter.level;
  layer.scaled = reference::is_scaled(task);
  layer.eta = task.recipe.scale.convention == ScaleConvention::Paper ? task.recipe.scale.eta : 0.0;
}

/// Sets the pointers: to the task's own memory, or to copies where that has no common order.
inline void locate(const AscentTask& task, size_t index, Layer& layer, std::vector<Detour>& detours) {
  const bool writes = task.rho > 0.0;
  const bool direct = same_memory_order(task.param, task.direction) && (layer.row == 0 || has_whole_rows(task.param)) &&
                      (!writes || same_memory_order(task.param, task.destination));
  if (direct) {
    layer.direction = task.direction.data_ptr();
    layer.weights = task.param.data_ptr();
    layer.out = writes ? task.destination.data_ptr() : nullptr;
    return;
  }
  Detour detour{index, task.param.detach().contiguous(), task.direction.contiguous(), {}};
  if (writes) detour.out = at::empty_like(detour.weights);
  layer.direction = detour.direction.data_ptr();
  layer.weights = detour.weights.data_ptr();
  layer.out = writes ? detour.out.data_ptr() : nullptr;
  detours.push_back(std::move(detour));
}

/// Writes the copies back.
inline void finish(std::vector<Detour>& detours, const std::vector<AscentTask>& tasks) {
  for (const Detour& detour : detours)
    if (tasks[detour.task].moved) tasks[detour.task].destination.copy_(detour.out);
  detours.clear();
}

inline bool is_ours_alone(const at::Tensor& tensor) {
  return tensor.defined() && tensor.use_count() == 1 && tensor.storage().use_count() == 1;
}

/// The data of a tensor of the last result, if nothing else holds it or a view of it; otherwise of a new one.
inline double* numbers(at::Tensor& tensor, at::IntArrayRef sizes, at::Device device = at::kCPU) {
  if (!is_ours_alone(tensor) || tensor.sizes() != sizes || tensor.device() != device)
    tensor = at::empty(sizes, at::TensorOptions().dtype(at::kDouble).device(device));
  return tensor.data_ptr<double>();
}

inline bool* flag(at::Tensor& tensor, at::Device device = at::kCPU) {
  if (!is_ours_alone(tensor) || tensor.device() != device)
    tensor = at::empty({}, at::TensorOptions().dtype(at::kBool).device(device));
  return tensor.data_ptr<bool>();
}

}  // namespace kernels::detail
STEPPE_NAMESPACE_END
