// The memory of measurements of a large model, in copies of its parameters.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/sharpness/ball.hpp>
#include <steppe/sharpness/eigenvalues.hpp>
#include <steppe/sharpness/landscape.hpp>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <cstdint>
#include <functional>

#include "../allocated_bytes.hpp"

namespace steppe::sharpness {
namespace {

using allocated_bytes::peak_of;

/// 11 million parameters in layers of which none dominates, and negligible activations.
struct LargeNet {
  LargeNet() {
    torch::manual_seed(0);
    for (int i = 0; i < 11; ++i) {
      model->push_back(torch::nn::Linear(1000, 1000));
    }
  }
  at::Tensor loss() { return model->forward(inputs).tanh().square().mean(); }
  double copies(const std::function<void()>& work) {
    const double bytes = 4.0 * 11.0 * 1001.0 * 1000.0;
    return static_cast<double>(peak_of(work)) / bytes;
  }

  torch::nn::Sequential model;
  at::Tensor inputs = torch::ones({2, 1000});
};

/// A layer's own temporaries are a share of a copy.
constexpr double kLayers = 0.3;

TEST(Memory, AllocationsAreCounted) {
  EXPECT_EQ(peak_of([] {
              const at::Tensor a = torch::empty({1000});
              { const at::Tensor b = torch::empty({500}); }
              const at::Tensor c = torch::empty({250});
            }),
            6000);
}

TEST(Memory, AProductAndATraceTakeThreeCopiesOfElevenMillionParameters) {
  LargeNet net;
  const LossSurface surface(*net.model, [&] { return net.loss(); });
  ASSERT_EQ(surface.numel(), 11011000);
  const Hessian hessian(surface, Derivative::DoubleBackward);
  EXPECT_LT(net.copies([&] { hessian.times_in_parts(torch::ones({surface.numel()})); }), 2.0 + kLayers);
  EXPECT_LT(net.copies([&] { hessian.times(torch::ones({surface.numel()})); }), 3.0 + kLayers);
  EXPECT_LT(net.copies([&] { trace(hessian, TraceOptions().vectors(2)); }), 3.0 + kLayers);
}

TEST(Memory, AProductOverSeveralBatchesTakesThree) {
  LargeNet net;
  const LossSurface surface(*net.model, {2, 2}, [&](size_t) { return net.loss(); });
  const Hessian hessian(surface, Derivative::DoubleBackward);
  EXPECT_LT(net.copies([&] { hessian.times(torch::ones({surface.numel()})); }), 3.0 + kLayers);
}

TEST(Memory, TheChoiceOfTheDerivativeAndDifferencesTakeThree) {
  LargeNet net;
  const LossSurface surface(*net.model, [&] { return net.loss(); });
  EXPECT_LT(net.copies([&] { Hessian chosen(surface); }), 3.0 + kLayers);
  const Hessian hessian(surface, Derivative::Differences);
  EXPECT_LT(net.copies([&] { hessian.times(torch::ones({surface.numel()})); }), 3.0 + kLayers);
}

TEST(Memory, TheLargestEigenvalueTakesThree) {
  LargeNet net;
  const LossSurface surface(*net.model, [&] { return net.loss(); });
  const Hessian hessian(surface, Derivative::DoubleBackward);
  EXPECT_LT(net.copies([&] { eigenvalues(hessian, EigenvalueOptions().basis(2).max_products(4)); }), 3.0 + kLayers);
}

TEST(Memory, SamSharpnessAndALandscapeTakeThree) {
  LargeNet net;
  const LossSurface surface(*net.model, [&] { return net.loss(); });
  EXPECT_LT(net.copies([&] { sam_sharpness(surface, 0.05); }), 3.0 + kLayers);
  EXPECT_LT(net.copies([&] { slice(surface, filter_normalised_direction(surface, 1), SliceOptions().points(3)); }),
            3.0 + kLayers);
}

}  // namespace
}  // namespace steppe::sharpness
