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
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>

#include <steppe/no_fast_math.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace shift {

/// R with R^T R = A^T A for a matrix A whose rows come in blocks, in float64, by QR of each block beneath the last R.
///
/// A^+ A and its ridge form need no more of A than that, and R keeps A's condition where A^T A would square it.
/// Memory: features^2 and one block, however many rows.
class RowSpace {
 public:
  /// Rows of as many features as the ones before.
  void add(const at::Tensor& rows) {
    const c10::NoGradGuard no_grad;
    const at::Tensor block = rows.detach().to(at::kDouble);
    TORCH_CHECK(block.dim() == 2 && (!r_.defined() || block.size(1) == r_.size(1)), "steppe: rows of shape ",
                block.sizes(), " cannot be added to a row space",
                r_.defined() ? " of other rows; they need as many features" : "; they must be a matrix");
    TORCH_CHECK(block.isfinite().all().item<bool>(), "steppe: a layer's inputs are not finite; nothing was shifted");
    const at::Tensor all = r_.defined() ? at::cat({r_, block}) : block;
    r_ = std::get<1>(at::linalg_qr(all, "r"));
    rows_ += block.size(0);
  }

  /// Projects the columns of V [features, outputs] on the space: A^+ A V, singular values below `tolerance` times the
  /// largest taken for zero; with ridge > 0 (A^T A + ridge I)^-1 A^T A V instead. Also gives the rank.
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

  /// What rounding alone leaves of a singular value, relative to the largest.
  double rounding() const {
    return static_cast<double>(std::max(rows_, features())) * std::numeric_limits<double>::epsilon();
  }

  int64_t rows() const { return rows_; }
  int64_t features() const { return r_.defined() ? r_.size(1) : 0; }

 private:
  at::Tensor r_;
  int64_t rows_ = 0;
};

}  // namespace shift
STEPPE_NAMESPACE_END
