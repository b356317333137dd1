// Which operator or kernel makes which update.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcdiv.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_sqrt.h>
#include <ATen/ops/full.h>
#include <c10/core/DispatchKey.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/version.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <steppe/kernels/cpu/updates.hpp>
#include <steppe/kernels/dispatch_threads.hpp>
#include <steppe/kernels/dispatch_update.hpp>
#include <steppe/kernels/task_layout.hpp>
#include <steppe/version.hpp>

// These operators have CPU kernels from 2.4 on; before it, CUDA uses LibTorch's classes as well.
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
#define STEPPE_HAS_FUSED_OPERATORS 1
#include <ATen/ops/_fused_adagrad.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#else
#define STEPPE_HAS_FUSED_OPERATORS 0
#endif

STEPPE_NAMESPACE_BEGIN
namespace kernels {
namespace detail {

inline const char* operator_of(UpdateRule::Kind kind) {
  switch (kind) {
    case UpdateRule::Kind::SGD:
      return "aten::_fused_sgd_";
    case UpdateRule::Kind::Adam:
      return "aten::_fused_adam_";
    case UpdateRule::Kind::AdamW:
      return "aten::_fused_adamw_";
    case UpdateRule::Kind::Adagrad:
      return "aten::_fused_adagrad_";
    case UpdateRule::Kind::RMSprop:
      break;
  }
  return nullptr;
}

/// This LibTorch may have been built without the device's kernels.
inline bool has_operator(UpdateRule::Kind kind, at::Device device) {
  if (!STEPPE_HAS_FUSED_OPERATORS || operator_of(kind) == nullptr) return false;
  struct Found {
    bool cpu[5] = {}, cuda[5] = {};
    Found() {
      for (int k = 0; k < 5; ++k) {
        const char* const name = operator_of(static_cast<UpdateRule::Kind>(k));
        if (name == nullptr) continue;
        const auto schema = c10::Dispatcher::singleton().findSchema({name, ""});
        cpu[k] = schema && schema->hasKernelForDispatchKey(c10::DispatchKey::CPU);
        cuda[k] = schema && schema->hasKernelForDispatchKey(c10::DispatchKey::CUDA);
      }
    }
  };
  static const Found found;
  return (device.is_cuda() ? found.cuda : found.cpu)[static_cast<int>(kind)];
}

/// Kernels of steppe, on the CPU. There are none in double.
inline bool has_kernel_of_ours(UpdateRule::Kind kind, at::ScalarType dtype) {
  if (dtype == at::kDouble) return false;
  if (!STEPPE_HAS_FUSED_OPERATORS || kind == UpdateRule::Kind::RMSprop) return true;
  return cpu::instruction_set() == cpu::InstructionSet::Avx2 || cpu::instruction_set() == cpu::InstructionSet::Avx512;
}

/// Components of which an update takes long enough to start a thread: 10 to 20 us.
constexpr int64_t kUpdatedByThread = int64_t{1} << 15;

/// RMSprop in a dozen operators over the list.
inline void rmsprop_by_lists(const UpdateRule& rule, const UpdateList& list) {
  const std::vector<at::Tensor>&params = list.params, &squares = list.kept[0], &momenta = list.kept[1],
        &means = list.kept[2];
  const std::vector<at::Tensor> decayed =
      exact::is_zero(rule.weight_decay) ? list.gradients : at::_foreach_add(list.gradients, params, rule.weight_decay);
  at::_foreach_mul_(squares, rule.alpha);
  at::_foreach_addcmul_(squares, decayed, decayed, 1.0 - rule.alpha);
  std::vector<at::Tensor> spread;
  if (rule.centered) {
    at::_foreach_mul_(means, rule.alpha);
    at::_foreach_add_(means, decayed, 1.0 - rule.alpha);
    spread = at::_foreach_addcmul(squares, means, means, -1.0);
    at::_foreach_sqrt_(spread);
  } else {
    spread = at::_foreach_sqrt(squares);
  }
  at::_foreach_add_(spread, rule.eps);
  if (!rule.has_momentum()) return at::_foreach_addcdiv_(params, decayed, spread, -rule.lr);
  at::_foreach_mul_(momenta, rule.momentum);
  at::_foreach_addcdiv_(momenta, decayed, spread, 1.0);
  at::_foreach_add_(params, momenta, -rule.lr);
}

}  // namespace detail

STEPPE_INLINE bool has_update(UpdateRule::Kind kind, at::Device device, at::ScalarType dtype) {
  Format format;
  if (!detail::format_of(dtype, format)) return false;
  if (device.is_cpu()) return detail::has_kernel_of_ours(kind, dtype) || detail::has_operator(kind, device);
  return device.is_cuda() && (kind == UpdateRule::Kind::RMSprop || detail::has_operator(kind, device));
}

STEPPE_INLINE bool lies_like(const at::Tensor& param, const at::Tensor& tensor) {
  return tensor.defined() && tensor.layout() == at::kStrided && tensor.scalar_type() == param.scalar_type() &&
         tensor.device() == param.device() && !tensor.is_neg() && detail::same_memory_order(param, tensor);
}

struct Updater::Memory {
  cpu::UpdatePass pass;
  at::Tensor step;
  std::vector<at::Tensor> steps;

  void run_ours(const UpdateRule& rule, const UpdateList& list) {
    pass.clear();
    for (size_t i = 0; i < list.params.size(); ++i) {
      cpu::Updated one;
      detail::format_of(list.params[i].scalar_type(), one.format);
      one.w = list.params[i].data_ptr();
      one.g = list.gradients[i].data_ptr();
      for (int k = 0; k < kKept; ++k)
        if (rule.keeps(k)) one.kept[k] = list.kept[k][i].data_ptr();
      one.size = list.params[i].numel();
      pass.add(one);
    }
    pass.run(rule, detail::AtenThreads(pass.components(), detail::kUpdatedByThread));
  }

#if STEPPE_HAS_FUSED_OPERATORS
  /// One tensor with the number of the step serves all parameters: operators only read it.
  const std::vector<at::Tensor>& steps_of(const UpdateRule& rule, const UpdateList& list, const at::Tensor& on_device) {
    at::Tensor one = on_device;
    if (!one.defined()) {
      const at::Device device = list.params.front().device();
      if (!step.defined() || step.device() != device)
        step = at::full({}, 0.0, at::TensorOptions().dtype(at::kFloat).device(device));
      if (device.is_cpu())
        *step.data_ptr<float>() = static_cast<float>(rule.step);
      else
        step.fill_(rule.step);
      one = step;
    }
    steps.assign(list.params.size(), one);
    return steps;
  }

  void run_operator(const UpdateRule& rule, const UpdateList& list, const UpdateNumbers& numbers) {
    const auto& kept = list.kept;
    const auto found_inf = numbers.found_inf.defined() ? std::optional<at::Tensor>(numbers.found_inf) : std::nullopt;
    const auto with_rate = [&](const auto& lr) {
      if (rule.kind == UpdateRule::Kind::SGD)
        at::_fused_sgd_(list.params, list.gradients, kept[0], rule.weight_decay, rule.momentum, lr, rule.dampening,
                        rule.nesterov, false, rule.fresh, std::nullopt, found_inf);
      else if (rule.kind == UpdateRule::Kind::Adam)
        at::_fused_adam_(list.params, list.gradients, kept[0], kept[1], kept[2], steps_of(rule, list, numbers.step), lr,
                         rule.beta1, rule.beta2, rule.weight_decay, rule.eps, rule.amsgrad, false, std::nullopt,
                         found_inf);
      else
        at::_fused_adamw_(list.params, list.gradients, kept[0], kept[1], kept[2], steps_of(rule, list, numbers.step),
                          lr, rule.beta1, rule.beta2, rule.weight_decay, rule.eps, rule.amsgrad, false, std::nullopt,
                          found_inf);
    };
    if (rule.kind == UpdateRule::Kind::Adagrad)
      return at::_fused_adagrad_(list.params, list.gradients, kept[0], steps_of(rule, list, numbers.step), rule.lr,
                                 rule.lr_decay, rule.weight_decay, rule.eps, false, std::nullopt, found_inf);
    if (numbers.lr.defined()) return with_rate(numbers.lr);
    with_rate(rule.lr);
  }
#else
  void run_operator(const UpdateRule&, const UpdateList&, const UpdateNumbers&) {
    TORCH_CHECK(false, "steppe: this LibTorch has no fused optimizers");
  }
#endif
};

STEPPE_INLINE Updater::Updater() : memory_(std::make_unique<Memory>()) {}
STEPPE_INLINE Updater::~Updater() = default;
STEPPE_INLINE Updater::Updater(Updater&&) noexcept = default;
STEPPE_INLINE Updater& Updater::operator=(Updater&&) noexcept = default;

STEPPE_INLINE void Updater::run(const UpdateRule& rule, const UpdateList& list, const UpdateNumbers& numbers) {
  if (list.params.empty()) return;
  const c10::NoGradGuard no_grad;
  const bool on_host = list.params.front().device().is_cpu();
  const bool as_captured = numbers.lr.defined() || numbers.step.defined() || numbers.found_inf.defined();
  if (on_host && !as_captured && detail::has_kernel_of_ours(rule.kind, list.params.front().scalar_type()))
    memory_->run_ours(rule, list);
  else if (rule.kind == UpdateRule::Kind::RMSprop)
    detail::rmsprop_by_lists(rule, list);
  else
    memory_->run_operator(rule, list, numbers);
  // LibTorch's fused operators do not.
  for (const at::Tensor& param : list.params) param.unsafeGetTensorImpl()->bump_version();
}

}  // namespace kernels
STEPPE_NAMESPACE_END
