// LoRA: a frozen weight and a trained update of low rank.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cmath>
#include <cstdint>
#include <ostream>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/tensorized/core_options.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// Options of a LowRankAdapter.
struct LowRankOptions {
  /// With alpha = rank.
  explicit LowRankOptions(int64_t rank) : rank_(rank) {}
  /// r, the rank of the update.
  TORCH_ARG(int64_t, rank);
  /// The update is alpha / rank times B A; 0: alpha = rank.
  TORCH_ARG(double, alpha) = 0.0;
  /// How forward() computes: by A and B beside W (Cores), or through the full W + alpha / r B A.
  TORCH_ARG(Route, route) = Route::Cheapest;
};

/// A linear layer under low-rank adaptation (LoRA, arXiv 2106.09685): y = x (W + alpha / r B A)^T + b, W [out, in] and
/// b frozen, A [r, in] and B [out, r] trained: the tensorized layer of two cores. A starts with variance 1 / in, B at
/// zero, so that outputs are at first those of the layer itself.
///
/// Input [..., in] or [in]. Cost besides the frozen layer: rows * r (in + out) multiplications, or in * r * out where
/// that is fewer. Parameters: weight and bias (frozen, so optimizers skip them), core_0 = A, core_1 = B.
///
///     steppe::tensorized::LowRankAdapter adapter(*model->fc, steppe::tensorized::LowRankOptions(8).alpha(16));
///     steppe::DAS<torch::optim::AdamW> das(adapter->cores(), torch::optim::AdamWOptions(1e-4),
///                                          steppe::ScalingOptions().alpha(1.0));
///
/// A rank beyond the smaller of in and out is of no use, but accepted, as saved adapters may have one. Errors: a rank
/// below 1, an alpha that is not finite, inputs of other features.
class LowRankAdapterImpl : public torch::nn::Cloneable<LowRankAdapterImpl> {
 public:
  /// Over a copy of a layer's weight and bias.
  LowRankAdapterImpl(const torch::nn::LinearImpl& layer, const LowRankOptions& options)
      : LowRankAdapterImpl(layer.weight, layer.bias, options) {}

  /// Over a copy of W [out, in] and b [out]; no bias if b is undefined.
  LowRankAdapterImpl(const at::Tensor& frozen, const at::Tensor& frozen_bias, const LowRankOptions& options)
      : options_(options) {
    TORCH_CHECK(frozen.dim() == 2 && frozen.numel() > 0,
                "steppe: a LowRankAdapter needs a weight [out, in], got one of "
                "shape ",
                frozen.sizes());
    out_ = frozen.size(0);
    in_ = frozen.size(1);
    TORCH_CHECK(!frozen_bias.defined() || frozen_bias.sizes() == c10::IntArrayRef{out_}, "steppe: a bias of ", out_,
                " entries is needed, got one of shape ", frozen_bias.sizes());
    TORCH_CHECK(options_.rank() >= 1, "steppe: the rank of a LowRankAdapter must be at least 1, got ", options_.rank());
    TORCH_CHECK(std::isfinite(options_.alpha()), "steppe: alpha must be finite, got ", options_.alpha());
    with_bias_ = frozen_bias.defined();
    reset();
    to(frozen.device(), frozen.scalar_type());
    const c10::NoGradGuard no_grad;
    weight_.copy_(frozen);
    if (with_bias_) bias_.copy_(frozen_bias);
  }

  /// Registers new parameters: W and b zero, A random, B zero.
  void reset() override {
    weight_ = register_parameter("weight", at::empty({out_, in_}).zero_(), /*requires_grad=*/false);
    bias_ = register_parameter("bias", with_bias_ ? at::empty({out_}).zero_() : at::Tensor(), /*requires_grad=*/false);
    a_ = register_parameter("core_0", at::empty({options_.rank(), in_}));
    b_ = register_parameter("core_1", at::empty({out_, options_.rank()}));
    const c10::NoGradGuard no_grad;
    a_.copy_(at::randn(a_.sizes(), a_.options()) / std::sqrt(static_cast<double>(in_)));
    b_.zero_();
  }

  /// y [..., out] of x [..., in]. Throws c10::Error if the input has other features.
  at::Tensor forward(const at::Tensor& input) {
    TORCH_CHECK(input.dim() > 0 && input.size(-1) == in_, "steppe: an input of shape ", input.sizes(),
                " does not fit a LowRankAdapter of ", in_, " features");
    if (route_for(input.sizes()) == Route::Full) return at::linear(input, weight(), bias_);
    return at::linear(input, weight_, bias_) + at::linear(at::linear(input, a_), b_) * scale();
  }

  /// {A, B}.
  std::vector<at::Tensor> cores() const { return {a_, b_}; }
  /// alpha / r B A, [out, in].
  at::Tensor update() const { return at::matmul(b_, a_) * scale(); }
  /// W + alpha / r B A, [out, in].
  at::Tensor weight() const { return weight_ + update(); }
  /// W, [out, in].
  at::Tensor frozen_weight() const { return weight_; }
  /// b, [out]; undefined if the layer has none.
  at::Tensor frozen_bias() const { return bias_; }
  /// alpha / r.
  double scale() const {
    const double r = static_cast<double>(options_.rank());
    return (kernels::exact::is_zero(options_.alpha()) ? r : options_.alpha()) / r;
  }

  /// Adds the update to the frozen weight and sets B to zero: outputs stay the same up to rounding.
  void merge() {
    const c10::NoGradGuard no_grad;
    weight_.add_(update());
    b_.zero_();
  }

  /// How forward() computes for an input of this shape: Cores or Full.
  Route route_for(c10::IntArrayRef input) const {
    if (options_.route() != Route::Cheapest) return options_.route();
    double rows = 1.0;
    for (size_t k = 0; k + 1 < input.size(); ++k) rows *= static_cast<double>(input[k]);
    const double in = static_cast<double>(in_), out = static_cast<double>(out_);
    return rows * (in + out) < in * out ? Route::Cores : Route::Full;
  }
  /// Sets how forward() computes.
  void route(Route way) { options_.route(way); }

  /// Writes the adapter's sizes, rank, scale and whether it has a bias, in one line.
  void pretty_print(std::ostream& out) const override {
    out << "steppe::LowRankAdapter(in_features=" << in_ << ", out_features=" << out_ << ", rank=" << options_.rank()
        << ", scale=" << scale() << ", bias=" << std::boolalpha << with_bias_ << ")";
  }

 private:
  LowRankOptions options_;
  int64_t in_ = 0, out_ = 0;
  bool with_bias_ = false;
  at::Tensor weight_, bias_, a_, b_;
};

/// Held by a shared pointer, as every LibTorch module.
TORCH_MODULE(LowRankAdapter);

}  // namespace tensorized
STEPPE_NAMESPACE_END
