// SPDX-License-Identifier: MIT
#include "fit.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

#include "presentation/spread.hpp"

namespace completion {
namespace {

std::vector<double> listed(const at::Tensor& values) {
  const at::Tensor flat = values.to(at::kDouble).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

}  // namespace

double r_squared(const at::Tensor& x, const at::Tensor& y, const at::Tensor& mask) {
  const at::Tensor seen = x.masked_select(mask), fitted = y.masked_select(mask);
  if (seen.numel() == 0) return presentation::kUnknown;
  const double variance = (seen - seen.mean()).square().sum().item<double>();
  if (!(variance > 0.0)) return presentation::kUnknown;
  return 1.0 - (seen - fitted).square().sum().item<double>() / variance;
}

std::vector<double> sample_errors(const at::Tensor& x, const at::Tensor& y, const at::Tensor& mask) {
  const at::Tensor weights = mask.to(x.scalar_type()).flatten(1);
  // A sample without entries gets 0/0, a NaN, as intended.
  return listed(((x - y).flatten(1).square() * weights).sum(1) / weights.sum(1));
}

std::vector<double> sample_counts(const at::Tensor& mask) { return listed(mask.flatten(1).sum(1)); }

at::Tensor column_means(const at::Tensor& x, const at::Tensor& observed) {
  const at::Tensor weights = observed.to(x.scalar_type()), counts = weights.sum(0);
  const at::Tensor means = at::where(counts > 0, (x * weights).sum(0) / counts, (x * weights).sum() / weights.sum());
  return means.unsqueeze(0).expand_as(x);
}

}  // namespace completion
