// How well a completed tensor fits, on given entries.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace completion {

/// R2 on the entries of `mask`: 1 - sum (x - y)^2 / sum (x - mean)^2, the mean being that of x on these entries. 1 is
/// perfect, 0 as good as this mean, below 0 worse. NaN without entries or without variance.
double r_squared(const at::Tensor& x, const at::Tensor& y, const at::Tensor& mask);

/// For every index of the first mode (a sample): mean of (x - y)^2 over its entries of `mask`; NaN where it has none.
std::vector<double> sample_errors(const at::Tensor& x, const at::Tensor& y, const at::Tensor& mask);

/// For every index of the first mode: how many entries the mask has.
std::vector<double> sample_counts(const at::Tensor& mask);

/// Every entry replaced by the mean of the `observed` ones with the same indices in all modes but the first; the mean
/// of all observed entries where there is none. The baseline of a completion.
at::Tensor column_means(const at::Tensor& x, const at::Tensor& observed);

}  // namespace completion
