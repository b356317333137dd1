// The steps of base optimizers, one pass over memory for a list of parameters.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include <steppe/kernels/update_rule.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels {

/// Parameters of one rule at one step, on one device and of one dtype, each with its gradient and its state.
struct UpdateList {
  std::vector<at::Tensor> params, gradients, kept[kKept];

  void clear() {
    params.clear();
    gradients.clear();
    for (auto& of_all : kept) of_all.clear();
  }
};

/// Numbers that are read on the device when a step runs there. Undefined: the rule's own.
struct UpdateNumbers {
  at::Tensor lr;         ///< 0-dim float32; for SGD, Adam and AdamW
  at::Tensor step;       ///< 0-dim float32
  at::Tensor found_inf;  ///< float32 of one element: where it is 1 nothing is changed
};

/// Whether a rule has an operator or a kernel for this device and dtype in this LibTorch.
bool has_update(UpdateRule::Kind kind, at::Device device, at::ScalarType dtype);

/// Whether the tensor can be traversed together with the parameter: the same shape, dtype, device and order of memory.
bool lies_like(const at::Tensor& param, const at::Tensor& tensor);

/// Applies UpdateRule.
///
/// On the CPU: kernels of steppe on AVX2 and AVX-512, for RMSprop, and for LibTorch before 2.4, but not in float64;
/// otherwise LibTorch's fused operators (at::_fused_sgd_ and the like). These share the work of one tensor between the
/// threads, the kernels that of the list. On other devices LibTorch's operators, for RMSprop its at::_foreach_ ones.
/// All are computed in float (in double for float64), and in 16 bits rounded once more when a number is stored.
class Updater {
 public:
  Updater();
  ~Updater();
  Updater(Updater&&) noexcept;
  Updater& operator=(Updater&&) noexcept;

  /// has_update() and lies_like() must hold for the list. Parameters may require a gradient.
  void run(const UpdateRule& rule, const UpdateList& list, const UpdateNumbers& numbers = {});

 private:
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

}  // namespace kernels
STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/kernels/dispatch_update.ipp>
#endif
