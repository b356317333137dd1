// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/sharpness/spectral_density.hpp>
#include <torch/types.h>

#include <cmath>
#include <string>
#include <vector>

#include "../errors.hpp"
#include "small_net.hpp"

namespace steppe::sharpness {
namespace {

TEST(SpectralDensity, MomentsAreThoseOfTheDenseHessianWithTheSameVectors) {
  SmallNet net;
  const at::Tensor dense = dense_hessian(net.model->parameters(), net.loss());
  const Hessian hessian(LossSurface(*net.model, [&] { return net.loss(); }));
  const SpectralDensity spectrum = spectral_density(hessian, SpectralDensityOptions().vectors(4).steps(5).seed(7));
  EXPECT_EQ(spectrum.products, 20);
  for (int order = 0; order <= 9; ++order) {  // 2 steps - 1
    RandomVectors random(7);
    double expected = 0.0;
    for (int i = 0; i < 4; ++i) {
      const at::Tensor v = random.rademacher(26, at::TensorOptions(at::kDouble));
      at::Tensor power = v;
      for (int j = 0; j < order; ++j) power = dense.mv(power);
      expected += v.dot(power).item<double>() / 26 / 4;
    }
    EXPECT_NEAR(spectrum.moment(order), expected, 1e-8) << order;
  }
}

TEST(SpectralDensity, OfADiagonalHasItsMomentsAndMass) {
  std::vector<double> spectrum(50, 0.0);
  for (int i = 0; i < 5; ++i) spectrum[static_cast<size_t>(i)] = 1.0 + i;
  const Quadratic quadratic(spectrum);
  const Hessian hessian(LossSurface({quadratic.w}, [&] { return quadratic.loss(); }));
  const SpectralDensity found = spectral_density(hessian, SpectralDensityOptions().vectors(2).sigma(0.1).points(2001));
  EXPECT_EQ(found.products, 12);  // six different eigenvalues end the Krylov space
  EXPECT_NEAR(found.moment(0), 1.0, 1e-10);
  EXPECT_NEAR(found.moment(1), 15.0 / 50, 1e-10);
  EXPECT_NEAR(found.moment(2), 55.0 / 50, 1e-10);
  EXPECT_NEAR(found.moment(3), 225.0 / 50, 1e-10);
  double mass = 0.0, near_zero = 0.0;
  const double step = found.grid[1] - found.grid[0];
  for (size_t i = 0; i < found.grid.size(); ++i) {
    mass += found.density[i] * step;
    if (std::abs(found.grid[i]) < 0.5) near_zero += found.density[i] * step;
  }
  EXPECT_NEAR(mass, 1.0, 1e-5);
  EXPECT_NEAR(near_zero, 0.9, 1e-3);
}

TEST(SpectralDensity, OfAFlatLossIsOnePeakAtZero) {
  const Quadratic quadratic({0.0, 0.0, 0.0});
  const SpectralDensity found = spectral_density(Hessian(LossSurface({quadratic.w}, [&] { return quadratic.loss(); })));
  EXPECT_EQ(found.moment(2), 0.0);
  EXPECT_EQ(found.sigma, 1.0);
}

TEST(SpectralDensity, ErrorsNameWhatIsWrong) {
  const Quadratic quadratic({1.0, 2.0});
  const Hessian hessian(LossSurface({quadratic.w}, [&] { return quadratic.loss(); }));
  const auto complains = [&](const SpectralDensityOptions& options, const std::string& words) {
    EXPECT_NE(message_of([&] { spectral_density(hessian, options); }).find(words), std::string::npos);
  };
  complains(SpectralDensityOptions().vectors(0), "got 0, 80 and 400");
  complains(SpectralDensityOptions().steps(0), "got 10, 0 and 400");
  complains(SpectralDensityOptions().points(1), "got 10, 80 and 1");
  complains(SpectralDensityOptions().sigma(-1.0), "got -1");
}

}  // namespace
}  // namespace steppe::sharpness
