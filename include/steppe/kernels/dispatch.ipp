// The choice of the kernels, and the ascent over them.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Context.h>
#include <ATen/Tensor.h>
#include <ATen/core/Generator.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <steppe/kernels/cpu/ascent.hpp>
#include <steppe/kernels/dispatch.hpp>
#include <steppe/kernels/dispatch_task.hpp>
#include <steppe/kernels/dispatch_threads.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/reference.hpp>
#include <steppe/kernels/task_layout.hpp>
#include <steppe/version.hpp>
#ifdef STEPPE_WITH_CUDA
#include <steppe/kernels/dispatch_cuda.hpp>
#endif

STEPPE_NAMESPACE_BEGIN
namespace kernels {

namespace detail {

/// Whether the CPU kernels support the task.
inline bool is_fused(const AscentTask& task) {
  Format format;
  return has_fused_recipe(task) && task.param.device().is_cpu() && task.direction.device().is_cpu() &&
         format_of(task.param.scalar_type(), format);
}

}  // namespace detail

STEPPE_INLINE bool is_capturing(at::Device device) {
  if (!device.is_cuda()) return false;
#if defined(STEPPE_WITH_CUDA)
  return cuda::is_capturing(detail::current_stream(device));
#elif TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 15)
  const c10::impl::VirtualGuardImpl devices(device.type());
  return devices.isStreamCapturing(devices.getStream(device));
#else
  // Without CUDA's headers this cannot be queried, but the generators refuse to give their state in a capture.
  try {
    at::globalContext().defaultGenerator(device).current_seed();
    return false;
  } catch (const c10::Error&) {
    return true;
  }
#endif
}

class Workspace::Kernels {
 public:
  Kernels() { cpu::instruction_set(); }

  AscentResult ascend(std::vector<AscentTask>& tasks) {
    const c10::NoGradGuard no_grad;
    if (!std::all_of(tasks.begin(), tasks.end(), detail::is_fused)) return ascend_elsewhere(tasks);
    if (overlap(tasks)) return reference::ascend(tasks);
    describe(tasks);
    int64_t components = 0;
    for (const Layer& layer : layers_) components += layer.size;
    const detail::AtenThreads threads(components);
    ascent_.measure(layers_, threads);
    find_emptied(tasks);
    const Norms norms = norms_of(tasks);
    for (size_t i = 0; i < tasks.size(); ++i) {
      factors_[i] = tasks[i].rho > 0.0 && !emptied_[i] ? factor_of(tasks[i], ascent_.statistics(i), norms) : 0.0;
      if (tasks[i].recipe.against) factors_[i] = -factors_[i];
      tasks[i].moved = !exact::is_zero(factors_[i]);
    }
    ascent_.ascend(layers_, factors_, threads);
    detail::finish(detours_, tasks);
    fill_result(tasks, norms);
    return result_;
  }

  int64_t bytes() const {
#ifdef STEPPE_WITH_CUDA
    return ascent_.bytes() + cuda_.bytes();
#else
    return ascent_.bytes();
#endif
  }

 private:
  struct Norms {
    double direction = 0.0, raw = 0.0;
    bool finite() const { return std::isfinite(direction) && std::isfinite(raw); }
  };

  /// What the CPU kernels do not support.
  AscentResult ascend_elsewhere(std::vector<AscentTask>& tasks) {
    const at::Device device = tasks.front().param.device();
#ifdef STEPPE_WITH_CUDA
    const auto is_fused = [&](const AscentTask& task) { return detail::is_fused_on(device, task); };
    if (std::all_of(tasks.begin(), tasks.end(), is_fused) && !overlap(tasks)) return cuda_.ascend(tasks);
#else
    if (device.is_cuda() && tasks.front().fused) {
      TORCH_WARN_ONCE("steppe: ascents over CUDA tensors use ATen operations; link steppe::cuda for the fused kernels");
    }
#endif
    return reference::ascend(tasks);
  }

  /// Whether parameters that are written in place share memory. The kernels would read what they have moved already.
  bool overlap(const std::vector<AscentTask>& tasks) {
    ranges_.clear();
    for (const AscentTask& task : tasks) {
      if (exact::is_zero(task.rho) || !task.destination.is_same(task.param) || task.param.numel() == 0) continue;
      int64_t last = 0;
      for (int64_t d = 0; d < task.param.dim(); ++d) last += (task.param.size(d) - 1) * task.param.stride(d);
      const auto begin = reinterpret_cast<uintptr_t>(task.param.data_ptr());
      ranges_.emplace_back(
          begin, begin + static_cast<uintptr_t>(last + 1) * static_cast<uintptr_t>(task.param.element_size()));
    }
    std::sort(ranges_.begin(), ranges_.end());
    for (size_t i = 1; i < ranges_.size(); ++i)
      if (ranges_[i].first < ranges_[i - 1].second) return true;
    return false;
  }

  void describe(const std::vector<AscentTask>& tasks) {
    layers_.resize(tasks.size());
    factors_.resize(tasks.size());
    detours_.clear();
    for (size_t i = 0; i < tasks.size(); ++i) {
      const AscentTask& task = tasks[i];
      Layer& layer = layers_[i] = Layer();
      detail::describe(task, layer);
      detail::locate(task, i, layer, detours_);
    }
  }

  /// Finds tensors without a tail that contribute nothing.
  void find_emptied(const std::vector<AscentTask>& tasks) {
    bool any_tail = false;
    for (size_t i = 0; i < tasks.size(); ++i)
      any_tail = any_tail || (layers_[i].filtered && ascent_.statistics(i).tail_found);
    emptied_.assign(tasks.size(), false);
    for (size_t i = 0; any_tail && i < tasks.size(); ++i)
      emptied_[i] = layers_[i].filtered && tasks[i].recipe.filter.empty_tail == EmptyTail::Whole &&
                    !ascent_.statistics(i).tail_found;
  }

  Norms norms_of(const std::vector<AscentTask>& tasks) const {
    double direction = 0.0, raw = 0.0;
    for (size_t i = 0; i < tasks.size(); ++i) {
      if (!tasks[i].in_norm && exact::is_zero(tasks[i].rho)) continue;
      if (!emptied_[i]) direction += ascent_.statistics(i).measure;
      raw += ascent_.statistics(i).gradient_squares;
    }
    return {std::sqrt(direction), std::sqrt(raw)};
  }

  static double radius_of(const AscentTask& task, double norm) {
    const Recipe::Radius& radius = task.recipe.radius;
    if (radius.rule == RadiusRule::Unified) return task.rho * (radius.share + exact::product(1.0 - radius.share, norm));
    if (radius.rule == RadiusRule::Inverse)
      return task.rho * (std::min)(radius.sigma / (norm + radius.delta) / task.rho, 1.0);
    return task.rho;
  }

  /// rho / N, or 0 where nothing may move.
  static double factor_of(const AscentTask& task, const cpu::Statistics& seen, const Norms& norms) {
    double divisor = task.recipe.norm == Norm::Direction ? norms.direction : norms.raw;
    if (task.recipe.norm == Norm::PerTensor && seen.tail_found) divisor = std::sqrt(seen.measure) + 1e-12;
    const double factor = radius_of(task, divisor) / divisor;
    const bool moves = norms.finite() && divisor > 0.0 && factor <= reference::largest_factor(task.param.scalar_type());
    return moves ? factor : 0.0;
  }

  void fill_result(const std::vector<AscentTask>& tasks, const Norms& norms) {
    const auto count = static_cast<int64_t>(tasks.size());
    double* gradient = detail::numbers(result_.layer_gradient_norm, {count});
    double* perturbation = detail::numbers(result_.layer_perturbation_norm, {count});
    double* share = detail::numbers(result_.layer_kept_share, {count});
    double squares = 0.0, kept = 0.0, looked_at = 0.0;
    for (size_t i = 0; i < tasks.size(); ++i) {
      const cpu::Statistics& seen = ascent_.statistics(i);
      gradient[i] = std::sqrt(seen.gradient_squares);
      perturbation[i] = exact::is_zero(factors_[i]) ? 0.0 : std::sqrt(seen.length) * std::abs(factors_[i]);
      squares += exact::product(perturbation[i], perturbation[i]);
      const int64_t kept_here = emptied_[i] ? 0 : seen.kept;
      share[i] = layers_[i].filtered ? static_cast<double>(kept_here) / static_cast<double>(layers_[i].size) : 1.0;
      if (!layers_[i].filtered) continue;
      kept += static_cast<double>(kept_here);
      looked_at += static_cast<double>(layers_[i].size);
    }
    *detail::numbers(result_.gradient_norm, {}) = norms.raw;
    *detail::numbers(result_.perturbation_norm, {}) = std::sqrt(squares);
    *detail::numbers(result_.kept_share, {}) = looked_at > 0.0 ? kept / looked_at : 1.0;
    *detail::flag(result_.finite) = norms.finite();
  }

#ifdef STEPPE_WITH_CUDA
  CudaWorkspace cuda_;
#endif
  cpu::Ascent ascent_;
  std::vector<Layer> layers_;
  std::vector<double> factors_;
  std::vector<bool> emptied_;
  std::vector<detail::Detour> detours_;
  std::vector<std::pair<uintptr_t, uintptr_t>> ranges_;
  AscentResult result_;
};

STEPPE_INLINE Workspace::Workspace() : kernels_(std::make_unique<Kernels>()) {}
STEPPE_INLINE Workspace::~Workspace() = default;
STEPPE_INLINE Workspace::Workspace(Workspace&&) noexcept = default;
STEPPE_INLINE Workspace& Workspace::operator=(Workspace&&) noexcept = default;

STEPPE_INLINE AscentResult Workspace::ascend(std::vector<AscentTask>& tasks) { return kernels_->ascend(tasks); }

STEPPE_INLINE int64_t Workspace::bytes() const { return kernels_->bytes(); }

STEPPE_INLINE void Workspace::release() { kernels_ = std::make_unique<Kernels>(); }

STEPPE_INLINE void centralize_(at::Tensor& gradient, int64_t min_dim) {
  if (gradient.dim() < std::max<int64_t>(min_dim, 2) || gradient.numel() == 0) return;
  const c10::NoGradGuard no_grad;
  gradient.copy_(reference::centralize(gradient));
}

}  // namespace kernels
STEPPE_NAMESPACE_END
