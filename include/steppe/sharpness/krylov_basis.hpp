// An orthonormal basis that Lanczos extends, and the Hessian projected onto it.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include <steppe/sharpness/hessian.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Rows v_1 .. v_m with H V^T = V^T T + beta v_next e_m^T, by Lanczos with full reorthogonalisation.
///
/// T is taken from all inner products and not from three of them, so that restart() may replace the rows by any
/// rotation of them. Cost: one product and four passes over the rows per extend(). Memory: `capacity` rows and one
/// more.
class KrylovBasis {
 public:
  /// Room for `capacity` rows, the first along `start` (flat, not zero). `seed`: of the vectors of begin_block().
  KrylovBasis(const Hessian& hessian, int64_t capacity, const at::Tensor& start, uint64_t seed)
      : hessian_(hessian),
        random_(seed),
        rows_(at::empty({capacity, start.size(0)}, start.options())),
        projected_(at::zeros({capacity, capacity}, at::kDouble)),
        next_(hessian.surface().sections(start)) {
    scale_next(1.0 / next_norm());
  }

  /// Adds the next vector as a row, by one product. Not beyond the capacity.
  void extend() {
    const std::vector<at::Tensor> row = hessian_.surface().sections(rows_[size_]);
    for (size_t i = 0; i < row.size(); ++i) row[i].copy_(next_[i]);
    next_.clear();  // not held while the product takes its memory
    next_ = hessian_.times_in_parts(rows_[size_]);
    ++size_;
    const at::Tensor inner = (orthogonalize() + orthogonalize()).to(at::TensorOptions(at::kCPU).dtype(at::kDouble));
    projected_.slice(0, 0, size_).select(1, size_ - 1).copy_(inner);
    projected_.select(0, size_ - 1).slice(0, 0, size_).copy_(inner);
    beta_ = next_norm();
    scale_ = (std::max)({scale_, inner.abs().amax().item<double>(), beta_});
    normalize_next();
  }

  /// Eigenvalues (ascending) and eigenvectors (columns) of T over the rows from number `from` on, float64 on the CPU.
  std::tuple<at::Tensor, at::Tensor> eigen(int64_t from = 0) const {
    return at::linalg_eigh(projected_.slice(0, from, size_).slice(1, from, size_));
  }

  /// T between the rows before number `from` and those from it on: zero if the ones before span an invariant space.
  at::Tensor coupling(int64_t from) const { return projected_.slice(0, 0, from).slice(1, from, size_); }

  /// Keeps rotation^T V; the columns of `rotation` are orthonormal, and eigenvectors of T over the rows of its last
  /// block, those before left out or kept as they are.
  void restart(const at::Tensor& rotation) {
    const at::Tensor inside =
        at::matmul(rotation.t(), at::matmul(projected_.slice(0, 0, size_).slice(1, 0, size_), rotation));
    rotate(rotation);
    projected_.zero_();
    projected_.slice(0, 0, size_).slice(1, 0, size_).copy_(inside);
  }

  /// Continues with a random vector that is orthogonal to the rows, which must span a nearly invariant space.
  void begin_block() {
    beta_ = 0.0;
    next_.clear();
    next_ = hessian_.surface().sections(random_.normal(rows_.size(1), rows_.options()));
    orthonormalize_next();
  }

  /// rotation^T V like restart(), but without T: the basis can then be read, not extended.
  at::Tensor rotated(const at::Tensor& rotation) {
    next_.clear();
    rotate(rotation);
    return size_ == rows_.size(0) ? rows_ : rows_.slice(0, 0, size_).clone();
  }

  /// Number of rows.
  int64_t size() const { return size_; }
  /// Zero where the rows span an invariant space; the next vector is then a random one.
  double beta() const { return beta_; }

 private:
  double next_norm() const {
    double squares = 0.0;
    for (const at::Tensor& part : next_) squares += std::pow(detail::two_norm(part), 2);
    return std::sqrt(squares);
  }

  void scale_next(double factor) {
    for (const at::Tensor& part : next_) part.mul_(factor);
  }

  at::Tensor orthogonalize() {
    const at::Tensor inner = at::zeros({size_}, rows_.options());
    for_each_section([&](const at::Tensor& rows, const at::Tensor& part) { inner.add_(at::mv(rows, part)); });
    for_each_section([&](const at::Tensor& rows, const at::Tensor& part) { part.addmv_(rows.t(), inner, 1, -1); });
    return inner;
  }

  template <class Visit>
  void for_each_section(Visit&& visit) const {
    int64_t at = 0;
    for (const at::Tensor& part : next_) {
      visit(rows_.slice(0, 0, size_).narrow(1, at, part.numel()), part);
      at += part.numel();
    }
  }

  void normalize_next() {
    const double epsilon = rows_.scalar_type() == at::kDouble
                               ? std::numeric_limits<double>::epsilon()
                               : static_cast<double>(std::numeric_limits<float>::epsilon());
    if (size_ == rows_.size(1)) {
      beta_ = 0.0;
      return;
    }
    if (beta_ <= 100.0 * epsilon * scale_) return begin_block();  // only rounding is left of it
    orthonormalize_next();
  }

  void orthonormalize_next() {
    // Where little is left of a long vector, rounding leaves components along the rows: subtract them once more.
    for (int pass = 0; pass < 2; ++pass) {
      scale_next(1.0 / next_norm());
      if (beta_ > 1e-3 * scale_) return;
      orthogonalize();
    }
    scale_next(1.0 / next_norm());
  }

  /// In blocks of columns, so that no second basis is needed.
  void rotate(const at::Tensor& rotation) {
    const at::Tensor by = rotation.t().to(rows_.options());
    const int64_t block = 1 << 16, columns = rows_.size(1);
    for (int64_t from = 0; from < columns; from += block) {
      const at::Tensor part = rows_.slice(0, 0, size_).slice(1, from, (std::min)(from + block, columns));
      const at::Tensor rotated = at::matmul(by, part);
      rows_.slice(0, 0, by.size(0)).slice(1, from, (std::min)(from + block, columns)).copy_(rotated);
    }
    size_ = by.size(0);
  }

  const Hessian& hessian_;
  RandomVectors random_;
  at::Tensor rows_, projected_;
  std::vector<at::Tensor> next_;  ///< in sections, one for each parameter
  int64_t size_ = 0;
  double beta_ = 0.0, scale_ = 0.0;
};

}  // namespace sharpness
STEPPE_NAMESPACE_END
