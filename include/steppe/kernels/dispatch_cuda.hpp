// The entry to the CUDA kernels, for programs that link steppe::cuda.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <torch/version.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <steppe/kernels/cuda/cuda.hpp>
#include <steppe/kernels/reference.hpp>
#include <steppe/kernels/task_layout.hpp>
#include <steppe/version.hpp>

// A stream of any device gives its handle from 2.15 on.
#if TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 15)
#include <c10/cuda/CUDAStream.h>
#endif

STEPPE_NAMESPACE_BEGIN
namespace kernels {

namespace detail {

inline cuda::Stream current_stream(at::Device device) {
#if TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 15)
  return c10::cuda::getCurrentCUDAStream(device.index()).stream();
#else
  return static_cast<cuda::Stream>(c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle());
#endif
}

/// Whether the CUDA kernels support the task, together with others on that device.
inline bool is_fused_on(at::Device device, const AscentTask& task) {
  Format format;
  const Recipe& recipe = task.recipe;
  const bool by_definition = recipe.against || recipe.radius.rule != RadiusRule::Constant ||
                             (recipe.filter.on && recipe.filter.empty_tail == EmptyTail::Whole);
  return device.is_cuda() && has_fused_recipe(task) && !by_definition && task.param.device() == device &&
         task.direction.device() == device && (exact::is_zero(task.rho) || task.destination.device() == device) &&
         format_of(task.param.scalar_type(), format) && format != Format::Float64;
}

}  // namespace detail

/// What the CUDA kernels keep between ascents. An ascent over the same memory allocates nothing, and nothing waits for
/// it. What a graph reads and writes is kept as long as the workspace.
class CudaWorkspace {
 public:
  /// For tasks that are fused on one device. Errors: what CUDA reports of a launch, and a capture before which no
  /// ascent has run.
  AscentResult ascend(std::vector<AscentTask>& tasks) {
    const at::Device device = tasks.front().param.device();
    const c10::DeviceGuard guard(device);
    const cuda::Stream stream = detail::current_stream(device);
    const bool captured = cuda::is_capturing(stream);
    // What a graph writes to belongs to the graph, other memory to the stream on which it was allocated.
    if (captured || stream != stream_) result_ = AscentResult();
    describe(tasks);
    const Memory memory = captured ? hand_to_graph(device) : upload(device, stream);
    const cuda::Results results = results_on(device);
    const char* const error = cuda::ascend(plan_, memory.table.data_ptr(), memory.scratch.data_ptr(), results, stream);
    if (error != nullptr) own_ = Memory();
    TORCH_CHECK(error == nullptr, "steppe: CUDA could not launch an ascent: ", error);
    for (AscentTask& task : tasks) task.moved = task.rho > 0.0;
    detail::finish(detours_, tasks);
    const AscentResult result = result_;
    if (captured) result_ = AscentResult();
    return result;
  }

  int64_t bytes() const {
    const auto of = [](const at::Tensor& memory) { return memory.defined() ? memory.numel() : 0; };
    int64_t sum = of(own_.table) + of(own_.scratch);
    for (const Memory& graph : graphs_) {
      if (!graph.table.is_same(own_.table)) sum += of(graph.table);
      if (!graph.scratch.is_same(own_.scratch)) sum += of(graph.scratch);
    }
    return sum;
  }

 private:
  /// What an ascent reads and writes besides tensors. `host` is what a graph copies the table from.
  struct Memory {
    at::Tensor host, table, scratch;
  };

  void describe(const std::vector<AscentTask>& tasks) {
    layers_.resize(tasks.size());
    detours_.clear();
    for (size_t i = 0; i < tasks.size(); ++i) {
      const AscentTask& task = tasks[i];
      cuda::Layer& layer = layers_[i] = cuda::Layer();
      detail::describe(task, layer);
      layer.rho = task.rho;
      layer.counted = task.in_norm;
      layer.norm = task.recipe.norm;
      detail::locate(task, i, layer, detours_);
    }
    plan_.describe(layers_);
  }

  /// The tables go to new memory when they change: an ascent that waits in the stream may still read the old ones.
  Memory upload(at::Device device, cuda::Stream stream) {
    if (!spare_.defined() || spare_.numel() != size()) spare_ = pinned(size());
    const bool stays = is_on(device) && stream == stream_;
    if (stays && plan_.table() == uploaded_) return own_;
    Memory next = own_;
    if (!stays || shape() != shape_)
      next.scratch = at::zeros({cuda::scratch_bytes(plan_)}, at::TensorOptions().dtype(at::kByte).device(device));
    next.table = copied(pinned(size()), device);
    own_ = next;
    shape_ = shape();
    uploaded_ = plan_.table();
    stream_ = stream;
    return own_;
  }

  /// In a graph the gradients have other memory than outside, as a rule, so that the table is part of the graph. It is
  /// copied from memory that was pinned before: in a capture none may be allocated.
  Memory hand_to_graph(at::Device device) {
    Memory graph = own_;
    if (!is_on(device) || plan_.table() != uploaded_) {
      TORCH_CHECK(is_on(device) && shape() == shape_ && spare_.defined() && spare_.numel() == size(),
                  "steppe: an ascent is captured into a CUDA graph, and none has run over the same tensors since the "
                  "start or the last capture; run a step before each capture");
      graph.table = copied(spare_, device);
      graph.host = std::move(spare_);
      spare_ = at::Tensor();
    }
    return graphs_.emplace_back(std::move(graph));
  }

  bool is_on(at::Device device) const { return own_.table.defined() && own_.table.device() == device; }
  int64_t size() const { return static_cast<int64_t>(plan_.table().size()); }
  std::vector<int64_t> shape() const {
    return {plan_.layers(), plan_.chunks(), plan_.rows(), plan_.histograms(), plan_.lists()};
  }

  static at::Tensor pinned(int64_t size) {
    return at::empty({size}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
  }
  at::Tensor copied(const at::Tensor& host, at::Device device) const {
    std::memcpy(host.data_ptr(), plan_.table().data(), plan_.table().size());
    return host.to(device, at::kByte, /*non_blocking=*/true);
  }

  cuda::Results results_on(at::Device device) {
    const int64_t count = plan_.layers();
    cuda::Results results;
    results.gradient_norm = detail::numbers(result_.gradient_norm, {}, device);
    results.perturbation_norm = detail::numbers(result_.perturbation_norm, {}, device);
    results.kept_share = detail::numbers(result_.kept_share, {}, device);
    results.finite = detail::flag(result_.finite, device);
    results.layer_gradient_norm = detail::numbers(result_.layer_gradient_norm, {count}, device);
    results.layer_perturbation_norm = detail::numbers(result_.layer_perturbation_norm, {count}, device);
    results.layer_kept_share = detail::numbers(result_.layer_kept_share, {count}, device);
    return results;
  }

  cuda::Plan plan_;
  std::vector<cuda::Layer> layers_;
  std::vector<detail::Detour> detours_;
  Memory own_;
  std::vector<std::byte> uploaded_;  ///< what is in own_.table
  std::vector<int64_t> shape_;       ///< what own_.scratch is for
  cuda::Stream stream_ = nullptr;    ///< where own_ was allocated
  at::Tensor spare_;                 ///< pinned, for the next graph
  std::vector<Memory> graphs_;
  AscentResult result_;
};

}  // namespace kernels
STEPPE_NAMESPACE_END
