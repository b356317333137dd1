// Several processes train one model, over LibTorch's process groups: Gloo, NCCL, MPI.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/nn/module.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <steppe/distributed/collectives.hpp>
#include <steppe/distributed/gradient_mean.hpp>
#include <steppe/distributed/world.hpp>
#include <steppe/sharding.hpp>
#include <steppe/step/gradient_exchange.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace distributed {

/// Means of the gradients of `params` over the processes of `group`, computed while backward() still runs: see
/// GradientMean. `params` must be all those of the optimizer, in the same order on all processes.
///
///     const auto world = steppe::distributed::world();
///     const auto group = steppe::distributed::gloo(world);
///     steppe::distributed::broadcast_from_first(*model, group);
///     optimizer.exchange(steppe::distributed::mean_over(world, group, model->parameters()));
///
/// Smaller buckets are sent earlier, larger ones have less overhead per byte. The World sets how long a step waits for
/// the others, and its store lets errors name the process that is missing. All processes call this at the same time.
///
/// Errors: parameters or buckets that differ between processes.
inline std::shared_ptr<GradientExchange> mean_over(const World& world, c10::intrusive_ptr<c10d::ProcessGroup> group,
                                                   std::vector<at::Tensor> params, int64_t bucket_bytes = 5 << 20) {
  return std::make_shared<GradientMean>(std::move(group), std::move(params), bucket_bytes, world.timeout, world.store,
                                        world.store_process);
}

/// The same for a group made without a World. Its errors cannot name the process that is missing, and training cannot
/// continue after a step that all processes have left by an exception.
inline std::shared_ptr<GradientExchange> mean_over(c10::intrusive_ptr<c10d::ProcessGroup> group,
                                                   std::vector<at::Tensor> params, int64_t bucket_bytes = 5 << 20,
                                                   std::chrono::milliseconds timeout = std::chrono::minutes(5)) {
  return std::make_shared<GradientMean>(std::move(group), std::move(params), bucket_bytes, timeout,
                                        c10::intrusive_ptr<c10d::Store>(), -1);
}

/// The sum over the processes of `group`, for optimizer.sharded(); all call it the same number of times. Errors: see
/// GradientMean::finish().
inline SumOverShards sum_over(c10::intrusive_ptr<c10d::ProcessGroup> group,
                              std::chrono::milliseconds timeout = std::chrono::minutes(5)) {
  const auto processes = std::make_shared<Collectives>(std::move(group), timeout);
  return [processes](at::Tensor& numbers) { processes->sum(numbers, "the numbers of the others"); };
}

/// Copies process 0's tensors to those of all others, bit for bit: any dtype, contiguous or not.
///
/// Errors: numbers of tensors, shapes or dtypes that differ between processes; sparse tensors.
inline void broadcast_from_first(const std::vector<at::Tensor>& tensors, c10::intrusive_ptr<c10d::ProcessGroup> group,
                                 std::chrono::milliseconds timeout = std::chrono::minutes(5)) {
  const c10::NoGradGuard no_grad;
  Collectives processes(std::move(group), timeout);
  if (processes.size() == 1) return;
  for (size_t i = 0; i < tensors.size(); ++i)
    TORCH_CHECK(tensors[i].defined() && tensors[i].layout() == at::kStrided, "steppe: tensor ", i,
                " of those to be sent is undefined or sparse; make it dense, or leave it out");
  check_same(processes, tensors, "tensors");
  constexpr int64_t kMessage = 25 << 20, kAlignment = 16;
  const auto bytes_of = [](const at::Tensor& tensor) {
    at::Tensor bytes = tensor.detach().contiguous().view({-1}).view(at::kByte);
    const int64_t rest = bytes.numel() % kAlignment;
    return rest == 0 ? bytes : at::cat({bytes, at::zeros({kAlignment - rest}, bytes.options())});
  };
  for (size_t first = 0; first < tensors.size();) {
    std::vector<at::Tensor> parts;
    int64_t size = 0;
    size_t end = first;
    for (; end < tensors.size() && tensors[end].device() == tensors[first].device() && size < kMessage; ++end) {
      parts.push_back(tensors[end].numel() > 0 ? bytes_of(tensors[end])
                                               : at::zeros({0}, tensors[end].options().dtype(at::kByte)));
      size += parts.back().numel();
    }
    at::Tensor message = at::cat(parts);
    if (size > 0) processes.broadcast_from_first(message, "the tensors of process 0");
    int64_t at = 0;
    for (size_t i = first; i < end; ++i) {
      const at::Tensor& tensor = tensors[i];
      const int64_t length = static_cast<int64_t>(tensor.nbytes());
      if (processes.rank() != 0 && length > 0)
        tensor.detach().copy_(message.narrow(0, at, length).view(tensor.scalar_type()).view(tensor.sizes()));
      at += parts[i - first].numel();
    }
    first = end;
  }
}

/// The same for a module's parameters and buffers, before the first step, so that all begin with the same model.
inline void broadcast_from_first(const torch::nn::Module& module, c10::intrusive_ptr<c10d::ProcessGroup> group,
                                 std::chrono::milliseconds timeout = std::chrono::minutes(5)) {
  std::vector<at::Tensor> tensors = module.parameters();
  for (const at::Tensor& buffer : module.buffers()) tensors.push_back(buffer);
  broadcast_from_first(tensors, std::move(group), timeout);
}

}  // namespace distributed
STEPPE_NAMESPACE_END
