// The space that a layer's inputs span, gathered block by block.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <c10/core/GradMode.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include <steppe/no_fast_math.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace shift {

/// R with R^T R = A^T A for a matrix A whose rows come in blocks, in float64, by QR of each block beneath the last R.
///
/// A^+ A and its ridge form need no more of A than that, and R keeps A's condition where A^T A would square it.
/// Memory: about ten times features^2 or 30 MiB, however many rows.
class RowSpace {
 public:
  /// Number of rows that are processed at once: twice as many as there are features, or more where these are few.
  static int64_t block_rows(int64_t features) {
    const int64_t elements = 1 << 20;  // 8 MiB
    return (std::max)(2 * features, elements / std::max<int64_t>(features, 1));
  }

  /// Throws c10::Error if an input is not finite.
  static void check_finite(const at::Tensor& inputs) {
    TORCH_CHECK(inputs.isfinite().all().item<bool>(), "steppe: a layer's inputs are not finite; nothing was shifted");
  }

  /// Adds rows [n, features]. Throws c10::Error if they have other features than those before, or are not finite.
  void add(const at::Tensor& rows) {
    const c10::NoGradGuard no_grad;
    TORCH_CHECK(rows.dim() == 2 && (!r_.defined() || rows.size(1) == r_.size(1)), "steppe: rows of shape ",
                rows.sizes(), " cannot be added to a row space",
                r_.defined() ? " of other rows; they need as many features" : "; they must be a matrix");
    const std::vector<at::Tensor> blocks = rows.detach().split(block_rows(rows.size(1)));
    for (const at::Tensor& block : blocks) check_finite(block);
    for (const at::Tensor& block : blocks) {
      at::Tensor all = block.to(at::kDouble);
      if (r_.defined()) all = at::cat({r_, all});
      r_ = std::get<1>(at::linalg_qr(all, "r"));
    }
    rows_ += rows.size(0);
    epsilon_ = (std::max)(epsilon_, epsilon_of(rows.scalar_type()));
  }

  /// Projects the columns of V [features, outputs] onto the space: A^+ A V, with singular values up to `tolerance`
  /// times the largest as zero; with ridge > 0 (A^T A + ridge I)^-1 A^T A V instead. Also gives the rank.
  std::pair<at::Tensor, int64_t> project(const at::Tensor& v, double ridge, double tolerance) const {
    const c10::NoGradGuard no_grad;
    const auto [u, s, basis] = at::linalg_svd(r_, /*full_matrices=*/false);
    const double largest = s.numel() == 0 ? 0.0 : s[0].item<double>();
    const int64_t rank = (s > tolerance * largest).sum().item<int64_t>();
    const at::Tensor kept = basis.slice(0, 0, rank), squares = s.slice(0, 0, rank).square();
    at::Tensor inside = at::matmul(kept, v);
    if (ridge > 0.0) inside.mul_((squares / (squares + ridge)).unsqueeze(1));
    return {at::matmul(kept.t(), inside), rank};
  }

  /// The square of the root-mean-square of A dV over rows and outputs, in the units of the layer's output.
  double mean_square_of(const at::Tensor& change) const {
    if (rows_ == 0 || change.size(1) == 0) return 0.0;
    const double sum = at::matmul(r_, change).square().sum().item<double>();
    return sum / (static_cast<double>(rows_) * static_cast<double>(change.size(1)));
  }

  /// How large rounding of the rows may make a singular value of zero, relative to the largest: the rounding unit of
  /// their type (the coarsest one) times the larger number of rows and features, but no more than that unit's square
  /// root. Rounding moves A by at most unit |A|_F, so singular values by no more than unit sqrt(features) of the
  /// largest: many rows do not increase it.
  double rounding() const {
    return (std::min)(static_cast<double>((std::max)(rows_, features())) * epsilon_, std::sqrt(epsilon_));
  }

  /// Number of rows that were added.
  int64_t rows() const { return rows_; }
  /// Columns of A; 0 before rows are added.
  int64_t features() const { return r_.defined() ? r_.size(1) : 0; }

 private:
  static double epsilon_of(at::ScalarType type) {
    switch (type) {
      case at::kFloat:
        return static_cast<double>(std::numeric_limits<float>::epsilon());
      case at::kHalf:
        return static_cast<double>(std::numeric_limits<c10::Half>::epsilon());
      case at::kBFloat16:
        return static_cast<double>(std::numeric_limits<c10::BFloat16>::epsilon());
      default:
        return std::numeric_limits<double>::epsilon();
    }
  }

  at::Tensor r_;
  int64_t rows_ = 0;
  double epsilon_ = std::numeric_limits<double>::epsilon();  ///< of the coarsest type of rows
};

}  // namespace shift
STEPPE_NAMESPACE_END
