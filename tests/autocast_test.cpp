// An autocast region around what moves weights: LibTorch keeps casts of weights until clear_cache().
// SPDX-License-Identifier: MIT
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/conv.h>
#include <torch/optim/sgd.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <functional>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>
#include <steppe/sharpness/ball.hpp>
#include <steppe/sharpness/hessian.hpp>
#include <steppe/sharpness/landscape.hpp>
#include <steppe/sharpness/loss_surface.hpp>
#include <steppe/step/autocast_state.hpp>

namespace steppe {
namespace {

class Region {
 public:
  explicit Region(at::ScalarType type) {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
    at::autocast::set_autocast_dtype(at::kCPU, type);
    at::autocast::set_autocast_enabled(at::kCPU, true);
#else
    at::autocast::set_autocast_cpu_dtype(type);
    at::autocast::set_cpu_enabled(true);
#endif
  }
  ~Region() {
    before_.set();
    at::autocast::clear_cache();
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

 private:
  const step::AutocastState before_ = step::AutocastState::now();
};

/// What every float16 convolution on the CPU needs exists from 2.1 on.
std::vector<at::ScalarType> types() {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
  return {at::kBFloat16, at::kHalf};
#else
  return {at::kBFloat16};
#endif
}

struct Convolution {
  torch::nn::Conv2d layer{nullptr};
  at::Tensor input;

  Convolution() {
    torch::manual_seed(0);
    layer = torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 8, 3).padding(1));
    input = at::randn({4, 1, 4, 4});
  }
  at::Tensor loss() { return layer->forward(input).to(at::kFloat).pow(2).mean(); }
};

using AutocastStep = std::function<void(Convolution&, SAM<torch::optim::SGD>&)>;

std::vector<at::Tensor> trained(const AutocastStep& step) {
  Convolution net;
  SAM<torch::optim::SGD> sam(*net.layer, torch::optim::SGDOptions(0.1), Options().rho(0.5));
  for (int i = 0; i < 3; ++i) step(net, sam);
  return net.layer->parameters();
}

void expect_same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << i;
}

TEST(Autocast, AroundAStepEqualsOneAroundEachPass) {
  for (const at::ScalarType type : types()) {
    const auto pass = [](Convolution& net, SAM<torch::optim::SGD>& sam) {
      sam.zero_grad();
      at::Tensor loss = net.loss();
      loss.backward();
      return loss;
    };
    const auto each = trained([&](Convolution& net, auto& sam) {
      sam.step([&] {
        const Region region(type);
        return pass(net, sam);
      });
    });
    expect_same(each, trained([&](Convolution& net, auto& sam) {
                  const Region region(type);
                  sam.step([&] { return pass(net, sam); });
                }));
    expect_same(each, trained([&](Convolution& net, auto& sam) {
                  const Region region(type);
                  pass(net, sam);
                  if (sam.ascend()) pass(net, sam);
                  sam.descend();
                }));
    expect_same(each, trained([&](Convolution& net, auto& sam) {
                  const Region region(type);
                  pass(net, sam);
                  sam.step();
                }));
    expect_same(each, trained([&](Convolution& net, auto& sam) {
                  {
                    const Region region(type);
                    pass(net, sam);
                  }
                  sam.step();
                }));
    const Region one_for_all(type);
    expect_same(each, trained([&](Convolution& net, auto& sam) { sam.step([&] { return pass(net, sam); }); }));
  }
}

TEST(Autocast, AroundAMeasurementEqualsOneAroundEachLoss) {
  for (const at::ScalarType type : types()) {
    Convolution net;
    const sharpness::LossSurface plain(*net.layer, [&] { return net.loss(); });
    const sharpness::LossSurface cast(*net.layer, [&] {
      const Region region(type);
      return net.loss();
    });
    const auto both = [&](const std::function<double(const sharpness::LossSurface&)>& measure) {
      const double expected = measure(cast);
      const Region region(type);
      net.loss();  // the casts of w are kept
      EXPECT_EQ(measure(plain), expected);
    };
    both([](const auto& surface) { return sharpness::sam_sharpness(surface, 0.5).sharpness; });
    both([](const auto& surface) { return sharpness::worst_case_sharpness(surface, 0.5).mean; });
    both([](const auto& surface) { return sharpness::average_case_sharpness(surface, 0.5).mean; });
    both([](const auto& surface) {
      return sharpness::slice(surface, sharpness::filter_normalised_direction(surface, 1),
                              sharpness::SliceOptions().points(3))
          .losses.back();
    });
    both([](const auto& surface) {
      const sharpness::Hessian hessian(surface);
      return hessian.times(at::ones({surface.numel()}, surface.vector_options())).sum().template item<double>();
    });
  }
}

TEST(Autocast, StaysAsTheCallerHadIt) {
  const Region region(at::kBFloat16);
  const step::AutocastState before = step::AutocastState::now();
  trained([](Convolution& net, auto& sam) {
    sam.zero_grad();
    net.loss().backward();
    sam.step();
  });
  EXPECT_TRUE(before == step::AutocastState::now());
}

}  // namespace
}  // namespace steppe
