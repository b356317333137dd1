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

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/shift/row_space.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// Smaller weights with the same outputs (optimum shifting).
namespace shift {

/// Options of optimum_shift().
struct ShiftOptions {
  /// 0: the exact least-norm solution. Over 0: the ridge solution, smaller weights whose outputs differ.
  TORCH_ARG(double, ridge) = 0.0;
  /// Whether the bias is included, as the weight of a constant input; otherwise it is not moved.
  TORCH_ARG(bool, include_bias) = false;
  /// Singular values of the inputs up to this share of the largest count as zero; 0: what is rounding in the inputs'
  /// type, its rounding unit times the larger number of rows and features (see RowSpace::rounding()).
  TORCH_ARG(double, rank_tolerance) = 0.0;

 public:
  /// Throws c10::Error if ridge or rank_tolerance is out of range.
  void validate() const {
    TORCH_CHECK(std::isfinite(ridge_) && ridge_ >= 0.0, "steppe: ridge must be finite and at least 0, got ", ridge_);
    TORCH_CHECK(rank_tolerance_ >= 0.0 && rank_tolerance_ < 1.0,
                "steppe: rank_tolerance must be from 0 to below 1, got ", rank_tolerance_);
  }
};

/// What a shift did to one layer.
struct ShiftReport {
  /// Of the weights, and of the bias if it is included.
  ///@{
  double norm_before = 0.0, norm_after = 0.0;
  ///@}
  int64_t rank = 0;            ///< of the inputs; of the first group where a convolution has several
  int64_t rows = 0,            ///< of the inputs: samples or patches
      features = 0;            ///< of the inputs: what one output unit is computed from
  double output_change = 0.0;  ///< root mean square over rows and outputs, before rounding to the weights' type
  bool moved = false;          ///< false at full rank without ridge: the weights are the only solution
};

/// Gathers the inputs of one layer, batch by batch, and shifts it: optimum_shift() for inputs that do not come at once.
class ShiftInputs {
 public:
  /// Throws c10::Error if options are out of range.
  explicit ShiftInputs(torch::nn::LinearImpl& layer, const ShiftOptions& options = {})
      : weight_(layer.weight), bias_(layer.bias), options_(options), spaces_(1) {
    options_.validate();
  }

  /// The same for a convolution. Errors: padding that is not by zeros.
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

  /// Writes the shifted weights in place; tensors keep their addresses. Errors: no inputs were added.
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
      const bool only_one = kernels::exact::is_zero(options_.ridge()) && rank == space.features();
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
    spaces_[group].add(with_bias() ? at::cat({rows, at::ones({rows.size(0), 1}, rows.options())}, 1) : rows);
  }

  /// Zeros around each image: before and after, the last dimension first; the odd one after, as LibTorch does.
  std::vector<int64_t> sides() const {
    const auto& o = *convolution_;
    std::vector<int64_t> all;
    using std::get_if, std::holds_alternative;
    const auto padding = o.padding();
    for (const size_t d : {size_t{1}, size_t{0}}) {
      int64_t before = 0, after = 0;
      if (const auto* sizes = get_if<torch::ExpandingArray<2>>(&padding)) {
        before = after = (**sizes)[d];
      } else if (holds_alternative<torch::enumtype::kSame>(padding)) {
        const int64_t total = (*o.dilation())[d] * ((*o.kernel_size())[d] - 1);
        before = total / 2;
        after = total - before;
      }
      all.push_back(before);
      all.push_back(after);
    }
    return all;
  }

  /// Unfolds some images, or some lines of one, at a time: all patches together would take kernel-size times the
  /// images.
  void add_patches(const at::Tensor& inputs) {
    const int64_t groups = static_cast<int64_t>(spaces_.size()), channels = weight_.size(1) * groups;
    TORCH_CHECK(inputs.dim() == 4 && inputs.size(1) == channels, "steppe: inputs of shape ", inputs.sizes(),
                " do not fit a convolution of ", channels, " channels");
    const auto& o = *convolution_;
    const std::vector<int64_t> around = sides();
    const auto size_of = [&](size_t d) {
      const size_t before = 2 * (1 - d);
      const int64_t size = inputs.size(static_cast<int64_t>(2 + d)) + around[before] + around[before + 1];
      return (size - (*o.dilation())[d] * ((*o.kernel_size())[d] - 1) - 1) / (*o.stride())[d] + 1;
    };
    const int64_t lines = size_of(0), columns = size_of(1);
    TORCH_CHECK(lines > 0 && columns > 0, "steppe: inputs of shape ", inputs.sizes(),
                " are smaller than the convolution's kernel");
    const int64_t rows = std::max<int64_t>(RowSpace::block_rows(weight_[0].numel()) / groups, 1);
    const int64_t images = std::max<int64_t>(rows / (lines * columns), 1);
    const int64_t at_once = std::max<int64_t>(rows / columns, 1);
    for (const at::Tensor& some : inputs.split(images)) RowSpace::check_finite(some);
    for (const at::Tensor& some : inputs.split(images)) {
      const at::Tensor padded = at::constant_pad_nd(some, around, 0);
      for (int64_t line = 0; line < lines; line += at_once) {
        const int64_t last = (std::min)(line + at_once, lines) - 1, stride = (*o.stride())[0];
        const int64_t reach = (*o.dilation())[0] * ((*o.kernel_size())[0] - 1) + 1;
        unfold(padded.slice(2, line * stride, last * stride + reach));
      }
    }
  }

  void unfold(const at::Tensor& padded) {
    const auto& o = *convolution_;
    const int64_t groups = static_cast<int64_t>(spaces_.size());
    const at::Tensor patches = at::im2col(padded, *o.kernel_size(), *o.dilation(), {0, 0}, *o.stride());
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
/// Solved in float64 whatever the layer's type; which singular values count as zero depends on the inputs' type. Where
/// the inputs' rank is the number of features it is the identity and nothing is written. Cost: one QR of the rows, a
/// block at a time, and one singular value decomposition of features^2; memory: about ten times features^2 in float64
/// or 30 MiB, however many rows or patches.
///
///     steppe::shift::ShiftReport seen = steppe::shift::optimum_shift(*model->fc, inputs_of_fc);
///
/// It promises the outputs on these inputs and a norm that does not grow, not a flatter loss. Errors: shapes that do
/// not fit, inputs that are not finite, a negative ridge.
///@{
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
///@}

}  // namespace shift
STEPPE_NAMESPACE_END
