// A linear layer's weights, moved to the smallest ones that give the same outputs.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/im2col.h>
#include <ATen/ops/ones.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include <steppe/shift/row_space.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace shift {

/// Options of optimum_shift().
struct ShiftOptions {
  /// 0: the exact least-norm solution. Over 0: the ridge solution, which lets the outputs give way for smaller weights.
  TORCH_ARG(double, ridge) = 0.0;
  /// Whether the bias takes part as the weight of a constant input; else it stays.
  TORCH_ARG(bool, include_bias) = false;
  /// Singular values of the inputs below this share of the largest count as zero; 0: what float64 cannot tell from it.
  TORCH_ARG(double, rank_tolerance) = 0.0;

 public:
  void validate() const {
    TORCH_CHECK(std::isfinite(ridge_) && ridge_ >= 0.0, "steppe: ridge must be finite and at least 0, got ", ridge_);
    TORCH_CHECK(rank_tolerance_ >= 0.0 && rank_tolerance_ < 1.0,
                "steppe: rank_tolerance must be from 0 to below 1, got ", rank_tolerance_);
  }
};

/// What a shift did to one layer.
struct ShiftReport {
  double norm_before = 0.0, norm_after = 0.0;  ///< of the weights, and of the bias where it takes part
  int64_t rank = 0;                            ///< of the inputs; of the first group where a convolution has several
  int64_t rows = 0, features = 0;              ///< of the inputs: samples or patches, and what a unit sees
  double output_change = 0.0;  ///< root mean square over rows and outputs, before rounding to the weights' type
  bool moved = false;          ///< false at full rank without ridge: the weights are the only solution
};

/// The inputs of one layer, gathered: what optimum_shift() takes of them.
class ShiftInputs {
 public:
  explicit ShiftInputs(torch::nn::LinearImpl& layer, const ShiftOptions& options = {})
      : weight_(layer.weight), bias_(layer.bias), options_(options), spaces_(1) {
    options_.validate();
  }

  /// Errors: padding that is not by zeros.
  explicit ShiftInputs(torch::nn::Conv2dImpl& layer, const ShiftOptions& options = {})
      : weight_(layer.weight), bias_(layer.bias), options_(options), convolution_(layer.options) {
    options_.validate();
    using std::holds_alternative;  // LibTorch 1.13 has a variant of its own, found by its namespace
    TORCH_CHECK(holds_alternative<torch::enumtype::kZeros>(convolution_->padding_mode()),
                "steppe: optimum shifting unfolds convolutions that are padded by zeros only");
    spaces_.resize(static_cast<size_t>(convolution_->groups()));
  }

  /// One more batch: [..., features] for a linear layer, [N, C, H, W] or [C, H, W] for a convolution.
  void add(const at::Tensor& inputs) {
    const c10::NoGradGuard no_grad;
    if (convolution_) return add_patches(inputs.dim() == 3 ? inputs.unsqueeze(0) : inputs);
    TORCH_CHECK(inputs.dim() > 0 && inputs.size(-1) == weight_.size(1), "steppe: inputs of shape ", inputs.sizes(),
                " do not fit a linear layer of ", weight_.size(1), " features");
    add_rows(0, inputs.reshape({-1, weight_.size(1)}));
  }

  /// Writes the shifted weights in place; tensors and addresses stay. Errors: no inputs were added.
  ShiftReport shift() {
    const c10::NoGradGuard no_grad;
    TORCH_CHECK(spaces_.front().rows() > 0, "steppe: optimum shifting needs at least one input of the layer");
    ShiftReport report;
    report.rows = spaces_.front().rows();
    report.features = spaces_.front().features();
    const int64_t groups = static_cast<int64_t>(spaces_.size()), outputs = weight_.size(0) / groups;
    std::vector<at::Tensor> solutions;
    double before = 0.0, after = 0.0, change = 0.0;
    for (int64_t g = 0; g < groups; ++g) {
      const RowSpace& space = spaces_[static_cast<size_t>(g)];
      const double tolerance = options_.rank_tolerance() > 0.0 ? options_.rank_tolerance() : space.rounding();
      const at::Tensor v = columns(g * outputs, outputs);
      auto [solution, rank] = space.project(v, options_.ridge(), tolerance);
      if (g == 0) report.rank = rank;
      const bool only_one = options_.ridge() == 0.0 && rank == space.features();
      if (only_one) solution = v;
      report.moved = report.moved || !only_one;
      before += v.square().sum().item<double>();
      after += solution.square().sum().item<double>();
      change += space.mean_square_of(solution - v) / static_cast<double>(groups);
      solutions.push_back(only_one ? at::Tensor() : solution);
    }
    for (int64_t g = 0; g < groups; ++g)
      if (solutions[static_cast<size_t>(g)].defined()) write(g * outputs, outputs, solutions[static_cast<size_t>(g)]);
    report.norm_before = std::sqrt(before);
    report.norm_after = std::sqrt(after);
    report.output_change = std::sqrt(change);
    return report;
  }

  /// The tensors that shift() writes.
  std::vector<at::Tensor> shifted() const {
    return with_bias() ? std::vector<at::Tensor>{weight_, bias_} : std::vector<at::Tensor>{weight_};
  }

 private:
  bool with_bias() const { return options_.include_bias() && bias_.defined(); }

  void add_rows(size_t group, const at::Tensor& rows) {
    const at::Tensor wide = rows.to(at::kDouble);
    spaces_[group].add(with_bias() ? at::cat({wide, at::ones({wide.size(0), 1}, wide.options())}, 1) : wide);
  }

  void add_patches(const at::Tensor& inputs) {
    const int64_t groups = static_cast<int64_t>(spaces_.size()), channels = weight_.size(1) * groups;
    TORCH_CHECK(inputs.dim() == 4 && inputs.size(1) == channels, "steppe: inputs of shape ", inputs.sizes(),
                " do not fit a convolution of ", channels, " channels");
    const auto& o = *convolution_;
    std::vector<int64_t> padding = {0, 0};
    at::Tensor padded = inputs;
    using std::get_if, std::holds_alternative;
    const auto padded_by = o.padding();
    if (const auto* sizes = get_if<torch::ExpandingArray<2>>(&padded_by)) {
      padding = {(**sizes)[0], (**sizes)[1]};
    } else if (holds_alternative<torch::enumtype::kSame>(padded_by)) {
      std::vector<int64_t> sides;  // the last dimension first; the odd one on the right, as LibTorch does
      for (const size_t d : {size_t{1}, size_t{0}}) {
        const int64_t total = (*o.dilation())[d] * ((*o.kernel_size())[d] - 1);
        sides.push_back(total / 2);
        sides.push_back(total - total / 2);
      }
      padded = at::constant_pad_nd(inputs, sides, 0);
    }
    const at::Tensor patches = at::im2col(padded, *o.kernel_size(), *o.dilation(), padding, *o.stride());
    const at::Tensor grouped = patches.view({patches.size(0), groups, -1, patches.size(2)});
    for (int64_t g = 0; g < groups; ++g)
      add_rows(static_cast<size_t>(g), grouped.select(1, g).transpose(1, 2).reshape({-1, grouped.size(2)}));
  }

  /// V of some outputs: their weights, and their biases beneath, as columns.
  at::Tensor columns(int64_t from, int64_t count) const {
    const at::Tensor rows = weight_.detach().slice(0, from, from + count).reshape({count, -1}).to(at::kDouble);
    if (!with_bias()) return rows.t();
    return at::cat({rows, bias_.detach().slice(0, from, from + count).to(at::kDouble).unsqueeze(1)}, 1).t();
  }

  void write(int64_t from, int64_t count, const at::Tensor& solution) {
    at::Tensor weights = weight_.detach().slice(0, from, from + count);
    const int64_t features = weights.numel() / count;
    weights.copy_(solution.slice(0, 0, features).t().reshape(weights.sizes()));
    if (with_bias()) bias_.detach().slice(0, from, from + count).copy_(solution[features]);
    at::autocast::clear_cache();  // casts of the weights as they were
  }

  at::Tensor weight_, bias_;
  ShiftOptions options_;
  std::optional<decltype(torch::nn::Conv2dImpl::options)> convolution_;
  std::vector<RowSpace> spaces_;
};

/// Moves the weights of a linear layer or a convolution to V* = A^+ A V, the least-norm ones with the same outputs
/// Z = A V on these inputs (arXiv 2405.14111); with ridge lambda to (A^T A + lambda I)^-1 A^T Z, which equals
/// A^T (A A^T + lambda I)^-1 Z. A convolution's rows are its unfolded patches.
///
/// Solved in float64 whatever the layer's type. Where the inputs' rank is the number of features it is the identity and
/// nothing is written. Cost: one QR of the rows and one singular value decomposition of features^2; memory: the rows in
/// float64 (for a convolution: the patches) and three times features^2.
///
///     steppe::shift::ShiftReport seen = steppe::shift::optimum_shift(*model->fc, inputs_of_fc);
///
/// It promises the outputs on these inputs and a norm that does not grow, not a flatter loss. Errors: shapes that do
/// not fit, inputs that are not finite, a negative ridge.
inline ShiftReport optimum_shift(torch::nn::LinearImpl& layer, const at::Tensor& inputs,
                                 const ShiftOptions& options = {}) {
  ShiftInputs gathered(layer, options);
  gathered.add(inputs);
  return gathered.shift();
}

inline ShiftReport optimum_shift(torch::nn::Conv2dImpl& layer, const at::Tensor& inputs,
                                 const ShiftOptions& options = {}) {
  ShiftInputs gathered(layer, options);
  gathered.add(inputs);
  return gathered.shift();
}

}  // namespace shift
STEPPE_NAMESPACE_END
