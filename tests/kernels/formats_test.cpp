// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/kernels/formats.hpp>
#include <torch/types.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace steppe::kernels {
namespace {

/// Every 16-bit pattern, as LibTorch widens it.
template <class Format>
void expect_widening_of_every_pattern(at::ScalarType dtype) {
  const at::Tensor patterns = torch::arange(65536, at::kInt).to(at::kShort);
  const at::Tensor wide = patterns.view(dtype).to(at::kFloat);
  for (int i = 0; i < 65536; ++i) {
    const float ours = widen(Format{static_cast<uint16_t>(i)}), theirs = wide.data_ptr<float>()[i];
    ASSERT_TRUE(std::memcmp(&ours, &theirs, sizeof(float)) == 0 || (std::isnan(ours) && std::isnan(theirs))) << i;
  }
}

TEST(Formats, WidenEveryPatternAsLibTorchDoes) {
  expect_widening_of_every_pattern<BFloat16>(at::kBFloat16);
  expect_widening_of_every_pattern<Half>(at::kHalf);
}

/// Random floats of every size, and those half-way between two numbers of the format.
template <class Format>
void expect_narrowing(at::ScalarType dtype, const at::Tensor& floats) {
  const at::Tensor narrowed = floats.to(dtype).view(at::kShort);
  for (int64_t i = 0; i < floats.numel(); ++i) {
    Format ours;
    narrow(floats.data_ptr<float>()[i], ours);
    const auto theirs = static_cast<uint16_t>(narrowed.data_ptr<int16_t>()[i]);
    if (std::isnan(floats.data_ptr<float>()[i]))
      ASSERT_TRUE(std::isnan(widen(ours)));
    else
      ASSERT_EQ(ours.bits, theirs) << floats.data_ptr<float>()[i];
  }
}

TEST(Formats, NarrowToNearestEvenAsLibTorchDoes) {
  torch::manual_seed(1);
  const at::Tensor bits = torch::randint(std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max(), {200000}, at::kLong);
  const at::Tensor any = bits.to(at::kInt).view(at::kFloat);
  // The low bits of a tie: one, zeros.
  const at::Tensor bf16_ties = (bits.bitwise_and(~int64_t{0xffff}) + 0x8000).to(at::kInt).view(at::kFloat);
  const at::Tensor half_ties = (bits.bitwise_and(~int64_t{0x1fff}) + 0x1000).to(at::kInt).view(at::kFloat);
  const at::Tensor small = torch::randn({100000}) * 1e-5, large = torch::randn({100000}) * 4e4;
  for (const at::Tensor& floats : {any, bf16_ties, half_ties, small, large}) {
    expect_narrowing<BFloat16>(at::kBFloat16, floats);
    expect_narrowing<Half>(at::kHalf, floats);
  }
}

}  // namespace
}  // namespace steppe::kernels
