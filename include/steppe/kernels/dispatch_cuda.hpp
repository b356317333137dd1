// The door to the CUDA kernels, for programs that link steppe::cuda.
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
#include <vector>

#include <steppe/kernels/cuda/cuda.hpp>
#include <steppe/kernels/reference.hpp>
#include <steppe/task_layout.hpp>

// A stream of any device tells its handle from 2.15 on.
#if TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 15)
#include <c10/cuda/CUDAStream.h>
#endif

namespace steppe::kernels {

namespace detail {

inline cuda::Stream current_stream(at::Device device) {
#if TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 15)
  return c10::cuda::getCurrentCUDAStream(device.index()).stream();
#else
  return static_cast<cuda::Stream>(c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle());
#endif
}

inline bool format_of(at::ScalarType dtype, cuda::Format& format) {
  switch (dtype) {
    case at::kFloat:
      format = cuda::Format::Float32;
      return true;
    case at::kBFloat16:
      format = cuda::Format::BFloat16;
      return true;
    case at::kHalf:
      format = cuda::Format::Half;
      return true;
    default:
      return false;
  }
}

/// The CUDA kernels can take the task, together with others on that device.
inline bool is_fused_on(at::Device device, const AscentTask& task) {
  cuda::Format format;
  return device.is_cuda() && has_fused_recipe(task) && task.param.device() == device &&
         task.direction.device() == device && (task.rho == 0.0 || task.destination.device() == device) &&
         format_of(task.param.scalar_type(), format);
}

}  // namespace detail

/// What the CUDA kernels keep between ascents. An ascent over the same memory allocates nothing, and nothing waits for
/// it.
class CudaWorkspace {
 public:
  /// For tasks that are fused on one device. Errors: what CUDA says of a launch, and a capture of memory that is new to
  /// it.
  AscentResult ascend(std::vector<AscentTask>& tasks) {
    const at::Device device = tasks.front().param.device();
    const c10::DeviceGuard guard(device);
    const cuda::Stream stream = detail::current_stream(device);
    const bool captured = cuda::is_capturing(stream);
    // What a graph writes to belongs to the graph.
    if (captured) result_ = AscentResult();
    describe(tasks);
    upload(device, captured);
    const char* const error = cuda::ascend(plan_, table_.data_ptr(), scratch_.data_ptr(), results_on(device), stream);
    if (error != nullptr) *this = CudaWorkspace();
    TORCH_CHECK(error == nullptr, "steppe: CUDA could not launch an ascent: ", error);
    for (AscentTask& task : tasks) task.moved = task.rho > 0.0;
    detail::finish(detours_, tasks);
    return result_;
  }

  int64_t bytes() const {
    int64_t sum = 0;
    for (const at::Tensor& memory : {table_, scratch_})
      if (memory.defined()) sum += memory.numel();
    return sum;
  }

 private:
  void describe(const std::vector<AscentTask>& tasks) {
    layers_.resize(tasks.size());
    detours_.clear();
    for (size_t i = 0; i < tasks.size(); ++i) {
      const AscentTask& task = tasks[i];
      cuda::Layer& layer = layers_[i] = cuda::Layer();
      detail::format_of(task.param.scalar_type(), layer.format);
      detail::describe(task, layer);
      layer.rho = task.rho;
      layer.counted = task.in_norm;
      layer.norm = task.recipe.norm;
      detail::locate(task, i, layer, detours_);
    }
    plan_.describe(layers_);
  }

  /// The tables go to new memory when they change: an ascent that waits in the stream may still read the old ones.
  void upload(at::Device device, bool captured) {
    const bool stays = table_.defined() && table_.device() == device;
    if (stays && plan_.table() == uploaded_) return;
    TORCH_CHECK(!captured,
                "steppe: an ascent is captured into a CUDA graph before it has run over the same tensors; run it "
                "once, and keep the gradients' memory: zero_grad(/*set_to_none=*/false)");
    const auto size = static_cast<int64_t>(plan_.table().size());
    const auto options = at::TensorOptions().dtype(at::kByte);
    const at::Tensor host = at::empty({size}, options.pinned_memory(true));
    std::memcpy(host.data_ptr(), plan_.table().data(), plan_.table().size());
    table_ = host.to(device, at::kByte, /*non_blocking=*/true);
    uploaded_ = plan_.table();
    const std::vector<int64_t> shape = {plan_.layers(), plan_.chunks(), plan_.rows(), plan_.histograms(),
                                        plan_.lists()};
    if (stays && shape == shape_) return;
    shape_ = shape;
    scratch_ = at::zeros({cuda::scratch_bytes(plan_)}, options.device(device));
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
  std::vector<std::byte> uploaded_;
  std::vector<int64_t> shape_;
  at::Tensor table_, scratch_;
  AscentResult result_;
};

}  // namespace steppe::kernels
