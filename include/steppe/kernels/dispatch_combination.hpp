// Two lists of gradients: their inner products and their linear combination, each in one pass over memory.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include <steppe/kernels/dispatch_task.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels {

/// The sums of x x, x y and y y over all pairs, accumulated in double, on the device of the first tensor; nothing waits
/// for a device. An undefined tensor counts as zeros. The same bits for any number of threads and on all instructions.
///
/// Errors: lists of different lengths, pairs of different shapes or on different devices, a complex tensor paired with
/// a real one.
Products products(const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y);

/// The sum of squares of all components: products(x, x).xx at half the cost.
at::Tensor squares(const std::vector<at::Tensor>& x);

/// out = a x + b y for every pair, in float (double for double), each operation rounded separately, and once more to
/// the dtype of x when it is stored. An undefined tensor counts as zeros; out[i] is undefined where both are. The rest
/// is plain arithmetic: 0 times NaN is NaN.
///
/// Written to out[i] where that is defined, dense and like x[i] in shape, dtype and device; it may be x[i] or y[i]
/// itself, but must share no memory with any other tensor here. Otherwise out[i] is a new tensor: sparse where x[i] and
/// y[i] are, as far as they are defined. `out` may be the list x or y.
///
/// a and b are 0-dim float64 tensors. They stay on their device, unless a tensor on the CPU is to be multiplied by a
/// number that another device has: that waits.
///
/// Returns the sum of squares of what was stored: 0-dim float64, on the device of the first tensor.
///
/// Errors: as products(), before anything is written.
at::Tensor combine(const at::Tensor& a, const std::vector<at::Tensor>& x, const at::Tensor& b,
                   const std::vector<at::Tensor>& y, std::vector<at::Tensor>& out);

/// The same with numbers on the host.
at::Tensor combine(double a, const std::vector<at::Tensor>& x, double b, const std::vector<at::Tensor>& y,
                   std::vector<at::Tensor>& out);

}  // namespace kernels
STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/kernels/dispatch_combination.ipp>
#endif
