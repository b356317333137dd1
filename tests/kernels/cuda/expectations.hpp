// When two ascents count as the same.
// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "model.hpp"

namespace steppe::kernels::cuda {

inline bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0 || (std::isnan(a) && std::isnan(b));
}

inline void expect_near(double ours, double expected, const char* what) {
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(ours)) << what;
  } else if (std::isinf(expected)) {
    EXPECT_EQ(ours, expected) << what;
  } else {
    EXPECT_NEAR(ours, expected, 1e-12 * std::fabs(expected)) << what;
  }
}

/// The same weights to the bit. The kernels add squares in another order, in double or in pairs of floats, which does
/// not reach a factor that is rounded to float.
inline void expect_agreement(const Outcome& ours, const Outcome& definition) {
  ASSERT_EQ(ours.finite, definition.finite);
  for (size_t k = 0; k < definition.moved.size(); ++k) {
    ASSERT_EQ(ours.moved[k].size(), definition.moved[k].size());
    for (size_t i = 0; i < ours.moved[k].size(); ++i)
      ASSERT_TRUE(same_bits(ours.moved[k][i], definition.moved[k][i]))
          << "layer " << k << ", component " << i << " of " << ours.moved[k].size() << ": " << ours.moved[k][i]
          << " is not " << definition.moved[k][i];
    expect_near(ours.layer_gradient_norm[k], definition.layer_gradient_norm[k], "norm of a gradient");
    expect_near(ours.layer_perturbation_norm[k], definition.layer_perturbation_norm[k], "norm of a perturbation");
    // Of a gradient that is not finite nothing is kept or left out.
    if (definition.finite) {
      EXPECT_EQ(ours.layer_kept_share[k], definition.layer_kept_share[k]) << "layer " << k;
    }
  }
  expect_near(ours.gradient_norm, definition.gradient_norm, "norm of the gradient");
  expect_near(ours.perturbation_norm, definition.perturbation_norm, "norm of the perturbation");
  if (definition.finite) expect_near(ours.kept_share, definition.kept_share, "kept share");
}

inline void expect_same_bits(const Outcome& a, const Outcome& b) {
  for (size_t k = 0; k < a.moved.size(); ++k)
    for (size_t i = 0; i < a.moved[k].size(); ++i)
      ASSERT_TRUE(same_bits(a.moved[k][i], b.moved[k][i])) << k << ", " << i;
  EXPECT_EQ(a.layer_gradient_norm, b.layer_gradient_norm);
  EXPECT_EQ(a.layer_perturbation_norm, b.layer_perturbation_norm);
  EXPECT_EQ(a.layer_kept_share, b.layer_kept_share);
  EXPECT_EQ(a.gradient_norm, b.gradient_norm);
  EXPECT_EQ(a.perturbation_norm, b.perturbation_norm);
}

}  // namespace steppe::kernels::cuda
