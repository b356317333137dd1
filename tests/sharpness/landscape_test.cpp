// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/sharpness/landscape.hpp>
#include <torch/types.h>

#include <string>
#include <vector>

#include "../errors.hpp"
#include "small_net.hpp"

namespace steppe::sharpness {
namespace {

TEST(Landscape, DirectionsHaveTheLengthsOfTheWeightsFilters) {
  torch::manual_seed(1);
  const at::Tensor kernel = torch::randn({4, 3, 2, 2}).requires_grad_(true), bias = torch::randn({4}).requires_grad_(true);
  {
    const at::NoGradGuard no_grad;
    kernel[2].zero_();
  }
  const LossSurface surface({kernel, bias}, [&] { return kernel.sum() + bias.sum(); });
  const std::vector<at::Tensor> d = surface.parts(filter_normalised_direction(surface, 5));
  EXPECT_TRUE(at::allclose(d[0].view({4, -1}).norm(2, {1}), kernel.detach().view({4, -1}).norm(2, {1})));
  EXPECT_FALSE(at::allclose(d[0], kernel));
  EXPECT_TRUE(d[0][2].equal(torch::zeros({3, 2, 2})));
  EXPECT_TRUE(d[1].equal(torch::zeros({4})));
  EXPECT_TRUE(filter_normalised_direction(surface, 5).equal(filter_normalised_direction(surface, 5)));
  EXPECT_FALSE(filter_normalised_direction(surface, 5).equal(filter_normalised_direction(surface, 6)));
}

TEST(Landscape, SlicesOfAQuadraticAreParabolas) {
  const Quadratic quadratic({4.0, 2.0});
  const LossSurface surface({quadratic.w}, [&] { return quadratic.loss(); });
  const at::Tensor first = torch::tensor({1.0, 0.0}, at::kDouble), second = torch::tensor({0.0, 1.0}, at::kDouble);
  const Slice along = slice(surface, first, SliceOptions().radius(2.0).points(5));
  EXPECT_EQ(along.positions, (std::vector<double>{-2.0, -1.0, 0.0, 1.0, 2.0}));
  EXPECT_EQ(along.losses, (std::vector<double>{3.0, 1.0, 3.0, 9.0, 19.0}));
  const Plane plane = slice(surface, first, second, SliceOptions().points(3));
  EXPECT_EQ(plane.positions, (std::vector<double>{-1.0, 0.0, 1.0}));
  EXPECT_EQ(plane.losses, (std::vector<std::vector<double>>{{0.0, 1.0, 4.0}, {2.0, 3.0, 6.0}, {8.0, 9.0, 12.0}}));
}

TEST(Landscape, TheMiddleIsTheLossItself) {
  SmallNet net(at::kFloat);
  const LossSurface surface(*net.model, [&] { return net.loss(); });
  const Slice along = slice(surface, filter_normalised_direction(surface, 1));
  EXPECT_EQ(along.losses.size(), 21U);
  EXPECT_EQ(along.losses[10], surface.loss());
}

TEST(Landscape, ErrorsNameWhatIsWrong) {
  const Quadratic quadratic({4.0, 2.0});
  const LossSurface surface({quadratic.w}, [&] { return quadratic.loss(); });
  const at::Tensor direction = torch::ones({2}, at::kDouble);
  const auto complains = [](const std::string& words, auto&& call) {
    const std::string message = message_of(call);
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  complains("does not fit", [&] { slice(surface, torch::ones({3}, at::kDouble)); });
  complains("got 0", [&] { slice(surface, direction, SliceOptions().radius(0.0)); });
  complains("got 1", [&] { slice(surface, direction, SliceOptions().points(1)); });
}

}  // namespace
}  // namespace steppe::sharpness
