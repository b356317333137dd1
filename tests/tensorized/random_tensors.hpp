// What the tests of tensorized models share: random tensors and their distance.
// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../errors.hpp"

namespace steppe::tensorized {

inline at::Tensor random(at::IntArrayRef shape, uint64_t seed = 1) {
  torch::manual_seed(seed);
  return torch::randn(shape, at::kDouble);
}

/// |a - b| / |b|
inline double distance(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return ((a - b).square().sum() / b.square().sum()).sqrt().item<double>();
}

inline void expect_error(const std::function<void()>& call, const std::string& words) {
  const std::string message = message_of(call);
  EXPECT_NE(message.find(words), std::string::npos) << "\"" << message << "\" does not say \"" << words << "\"";
}

/// A call must say one thing on the standard error, where LibTorch's warnings go.
inline void expect_warning(const std::function<void()>& call, const std::string& words) {
  testing::internal::CaptureStderr();
  call();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find(words), std::string::npos) << "\"" << said << "\" does not say \"" << words << "\"";
}

/// The square of what truncating the matrix of the first `modes` modes against the others to a rank discards.
inline double discarded(const at::Tensor& tensor, int64_t modes, int64_t rank) {
  int64_t rows = 1;
  for (int64_t k = 0; k < modes; ++k) rows *= tensor.size(k);
  return at::linalg_svdvals(tensor.reshape({rows, -1})).slice(0, rank).square().sum().item<double>();
}

}  // namespace steppe::tensorized
