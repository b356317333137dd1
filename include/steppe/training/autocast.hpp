// A region in which operators compute in 16 bits.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/autocast_mode.h>
#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <steppe/step/autocast_state.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace training {

/// While it lives, the operators of this thread on `device` that are safe in 16 bits compute in them, and the others in
/// float32: torch.autocast of Python, on every LibTorch from 1.13 on. Weights stay as they are; casts of them are kept
/// until the outermost region ends; what moves weights in steppe clears them.
///
///     sam.step([&] {
///       at::Tensor loss;
///       { const steppe::training::Autocast bf16(at::kCPU); loss = criterion(model->forward(x), y); }
///       loss.backward();
///       return loss;
///     });
///
/// The forward pass and the loss belong inside, backward() outside. Regions nest; `enabled` false makes a float32
/// region. bfloat16 needs no GradScaler; float16 (CUDA; CPUs from LibTorch 2.3 on) does. Errors: a dtype that is not
/// one of them, a device that is neither CPU nor CUDA.
class Autocast {
 public:
  /// Begins a region, until the end of its scope. Throws c10::Error for another device or dtype than those above.
  explicit Autocast(c10::DeviceType device, at::ScalarType dtype = at::kBFloat16, bool enabled = true) {
    TORCH_CHECK(device == at::kCPU || device == at::kCUDA, "steppe: Autocast is for at::kCPU and at::kCUDA, got ",
                device);
    TORCH_CHECK(dtype == at::kBFloat16 || dtype == at::kHalf,
                "steppe: Autocast computes in at::kBFloat16 or at::kHalf, got ", dtype);
    step::AutocastState::now().with(device, enabled, dtype).set();
    at::autocast::increment_nesting();
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;
  ~Autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    before_.set();
  }

 private:
  const step::AutocastState before_ = step::AutocastState::now();
};

}  // namespace training
STEPPE_NAMESPACE_END
