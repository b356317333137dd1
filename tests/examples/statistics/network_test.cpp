// SPDX-License-Identifier: MIT
#include "statistics/network.hpp"
#include "../../contains.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>
#include <string>

namespace statistics {
namespace {

/// Images of one grey each: class 2 dark, class 1 light, class 0 in between.
cifar::Dataset greys() {
  const auto split = [](int64_t count) {
    const at::Tensor labels = at::arange(count, at::kLong).remainder(3);
    const at::Tensor grey = at::tensor({120, 220, 20}, at::kByte).index({labels});
    return cifar::Split{grey.view({-1, 1, 1, 1}).expand({count, 3, 32, 32}).contiguous(), labels};
  };
  cifar::Dataset data;
  data.name = "greys";
  data.classes = 4;
  data.mean = {0.5, 0.5, 0.5};
  data.deviation = {0.25, 0.25, 0.25};
  data.train = split(30);
  data.test = split(9);
  return data;
}

const std::function<bool()> kGoOn = [] { return true; };

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "none";
}

TEST(Network, TakesTwoClassesAsNormalisedSmallImages) {
  const TwoClasses data = two_classes(greys(), 2, 1);
  EXPECT_EQ(data.train_images.sizes(), (std::vector<int64_t>{20, 768}));
  EXPECT_EQ(data.test_labels.size(0), 6);
  // The order is that of the data: 1, 2, 1, 2 ...; class 1 is the second here.
  EXPECT_TRUE(at::equal(data.test_labels, at::tensor({1, 0, 1, 0, 1, 0}, at::kLong)));
  EXPECT_NEAR(data.test_images[0][0].item<double>(), (220.0 / 255.0 - 0.5) / 0.25, 1e-5);
  EXPECT_TRUE(at::equal(signs(data.test_labels), at::tensor({1.f, -1.f, 1.f, -1.f, 1.f, -1.f})));
}

TEST(Network, RefusesClassesThatAreNotThere) {
  EXPECT_TRUE(contains(refusal([] { two_classes(greys(), 0, 4); }), "there is no class 4, greys has 0 to 3"));
  EXPECT_TRUE(contains(refusal([] { two_classes(greys(), -1, 2); }), "there is no class -1"));
  EXPECT_TRUE(contains(refusal([] { two_classes(greys(), 1, 1); }), "not 1 twice"));
  EXPECT_TRUE(contains(refusal([] { two_classes(greys(), 0, 3); }), "no images of one of the classes 0 and 3"));
}

TEST(Network, EveryMethodLearnsWhatIsEasy) {
  const TwoClasses data = two_classes(greys(), 2, 1);
  const NetworkSettings settings{8, 0.001, {0, 1, 60}};
  for (const Method& method : {Method{"GD", Method::Kind::GradientDescent, 0.0}, Method{"SAM", Method::Kind::Sam, 0.01},
                               Method{"plain", Method::Kind::UnnormalisedSam, 0.0005}}) {
    const auto run = trained(data, data.train_labels, method, settings, 3, kGoOn);
    ASSERT_TRUE(run);
    EXPECT_EQ(run->predictions.sizes(), (std::vector<int64_t>{3, 6}));
    const NetworkCurves curves = curves_of({*run}, data.test_labels);
    EXPECT_EQ(curves.error.back(), 0.0) << method.name;
    EXPECT_LT(curves.risk.back(), curves.risk.front()) << method.name;
    EXPECT_GT(curves.top_eigenvalue, 0.0) << method.name;
  }
}

TEST(Network, MethodsStartFromTheSameWeightsAndThenPart) {
  const TwoClasses data = two_classes(greys(), 2, 1);
  const NetworkSettings settings{8, 0.001, {0, 5}};
  const auto run = [&](Method::Kind kind, uint64_t seed) {
    return trained(data, data.train_labels, {"", kind, 0.001}, settings, seed, kGoOn)->predictions;
  };
  const at::Tensor gd = run(Method::Kind::GradientDescent, 3), sam = run(Method::Kind::Sam, 3);
  const at::Tensor plain = run(Method::Kind::UnnormalisedSam, 3);
  EXPECT_TRUE(at::equal(gd, run(Method::Kind::GradientDescent, 3))) << "the same again";
  EXPECT_TRUE(at::equal(gd[0], sam[0]));
  EXPECT_TRUE(at::equal(gd[0], plain[0]));
  EXPECT_FALSE(at::equal(gd[1], sam[1]));
  EXPECT_FALSE(at::equal(gd[1], plain[1]));
  EXPECT_FALSE(at::equal(sam[1], plain[1]));
  EXPECT_FALSE(at::equal(gd[0], run(Method::Kind::GradientDescent, 4)[0]));
}

TEST(Network, SaysThatItDivergedAndWhatHelps) {
  const TwoClasses data = two_classes(greys(), 2, 1);
  const Method gd{"GD", Method::Kind::GradientDescent, 0.0};
  EXPECT_TRUE(contains(refusal([&] {
                         trained(data, data.train_labels, gd, {8, 50.0, {0, 300}}, 3, kGoOn);
                       }),
                       "GD diverges with a learning rate of 50"));
}

TEST(Network, EndsWhenItIsToldTo) {
  const TwoClasses data = two_classes(greys(), 2, 1);
  const Method gd{"GD", Method::Kind::GradientDescent, 0.0};
  EXPECT_FALSE(trained(data, data.train_labels, gd, {8, 0.001, {0, 3}}, 3, [] { return false; }));
}

TEST(Network, CurvesAreOfTheDrawsAgainstTheCleanLabels) {
  // Two draws of one image of each class: (0.5, -1) and (1.5, 1), at a single step; the second image is wrong once.
  const std::vector<Trained> draws = {{at::tensor({0.5f, -1.0f}).view({1, 2}), 2.0},
                                      {at::tensor({1.5f, 1.0f}).view({1, 2}), 4.0}};
  const NetworkCurves curves = curves_of(draws, at::tensor({1, 0}, at::kLong));
  EXPECT_DOUBLE_EQ(curves.error[0], 0.25);
  EXPECT_DOUBLE_EQ(curves.bias[0], (-0.5 * 0.5 + 0.0 * 2.0) / 2.0);
  EXPECT_DOUBLE_EQ(curves.risk[0], (0.25 + 0.25 + 0.0 + 4.0) / 4.0);
  EXPECT_DOUBLE_EQ(curves.variance[0], curves.risk[0] - curves.bias[0]);
  EXPECT_DOUBLE_EQ(curves.top_eigenvalue, 3.0);
}

}  // namespace
}  // namespace statistics
