// Tensorized layers in a model, trained: what norm deviation and DAS are for.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <steppe/perturbation.hpp>
#include <steppe/tensorized/low_rank_adapter.hpp>
#include <steppe/tensorized/norm_deviation.hpp>
#include <steppe/tensorized/tensorized_conv2d.hpp>
#include <steppe/tensorized/tensorized_linear.hpp>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <cmath>
#include <vector>

#include "formats.hpp"
#include "random_tensors.hpp"

namespace steppe::tensorized {
namespace {

using torch::optim::OptimizerParamGroup;
using torch::optim::SGD;
using torch::optim::SGDOptions;

/// A convolution and a classifier in ring format, tanh between, in float64.
struct Net {
  explicit Net(Format format = Format::TensorRing) {
    torch::manual_seed(8);
    conv = TensorizedConv2d(torch::nn::Conv2dOptions(4, 6, 3).padding(1), CoreOptions().format(format).rank(2));
    head = TensorizedLinear(6 * 16, 3, CoreOptions().format(format).rank(2));
    model = torch::nn::Sequential(conv, torch::nn::Tanh(), torch::nn::Flatten(), head);
    model->to(at::kDouble);
    const torch::NoGradGuard no_grad;
    conv->cores()[1].mul_(2.0);  // norms apart, the weight with them
    head->cores()[0].mul_(0.5);
  }
  at::Tensor loss() { return (model->forward(inputs) - targets).square().mean(); }
  at::Tensor backward() {
    model->zero_grad();
    at::Tensor value = loss();
    value.backward();
    return value;
  }
  std::vector<OptimizerParamGroup> groups() const {
    return {OptimizerParamGroup(conv->cores()), OptimizerParamGroup(head->cores()),
            OptimizerParamGroup({conv->bias, head->bias})};
  }

  TensorizedConv2d conv{nullptr};
  TensorizedLinear head{nullptr};
  torch::nn::Sequential model{nullptr};
  at::Tensor inputs = random({10, 4, 4, 4}, 3), targets = random({10, 3}, 4);
};

/// dQ/dt of the flow dG_k/dt = -along_k.
double rate(const std::vector<at::Tensor>& cores, const std::vector<at::Tensor>& along) {
  const at::Tensor squares = norm_deviation(cores).core_squares;
  double sum = 0.0;
  for (size_t k = 0; k < cores.size(); ++k)
    sum += 2.0 * (squares[static_cast<int64_t>(k)] - squares.mean()).item<double>() * -2.0 *
           (cores[k].detach() * along[k]).sum().item<double>();
  return sum;
}

std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& of) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& each : of) all.push_back(each.grad().clone());
  return all;
}

TEST(TensorizedNet, ItsWeightsStayWhereOneCoreGrowsAndAnotherShrinks) {
  for (const Format format : kFormats) {
    Net net(format);
    const c10::NoGradGuard no_grad;
    const at::Tensor conv = net.conv->weight(), head = net.head->weight(), output = net.model->forward(net.inputs);
    for (size_t i = 0; i < net.conv->cores().size(); ++i) {
      net.conv->cores()[i].mul_(5.0);
      net.conv->cores()[(i + 1) % net.conv->cores().size()].div_(5.0);
      EXPECT_LT(distance(net.conv->weight(), conv), 1e-14) << format;
    }
    for (size_t i = 0; i < net.head->cores().size(); ++i) {
      net.head->cores()[i].mul_(0.1);
      net.head->cores()[(i + 2) % net.head->cores().size()].div_(0.1);
      EXPECT_LT(distance(net.head->weight(), head), 1e-14) << format;
    }
    EXPECT_LT(distance(net.model->forward(net.inputs), output), 1e-13) << format;
    net.conv->cores()[0].mul_(2.0);
    EXPECT_LT(distance(net.conv->weight(), conv * 2.0), 1e-14) << format;
  }
}

TEST(TensorizedNet, GradientFlowConservesTheDeviationOfEveryLayer) {
  for (const Format format : kFormats) {
    Net net(format);
    net.backward();
    for (const auto& cores : {net.conv->cores(), net.head->cores()}) {
      const NormDeviation seen = norm_deviation(cores);
      EXPECT_NEAR(rate(cores, gradients(cores)) / seen.deviation().item<double>(), 0.0, 1e-12) << format;
    }
  }
}

TEST(TensorizedNet, TheFlowOfSamOnALayerMatchesTheoryToFirstOrder) {
  for (const Format format : kFormats) {
    Net net(format);
    for (const auto& cores : {net.conv->cores(), net.head->cores()}) {
      const auto error_at = [&](double rho) {
        net.backward();
        const double predicted = norm_deviation(cores).predicted_rate(rho).item<double>();
        const std::vector<at::Tensor> along = gradients(cores);
        std::vector<at::Tensor> moved;
        {
          const Perturbation at(cores, along, rho);
          net.backward();
          moved = gradients(cores);
        }
        return std::abs(rate(cores, moved) / predicted - 1.0);
      };
      EXPECT_LT(error_at(1e-5), 2e-2) << format;
      EXPECT_NEAR(error_at(1e-4) / error_at(1e-5), 10.0, 1.0) << format;
    }
  }
}

TEST(TensorizedNet, OneStepOfDasChangesTheDeviationAsTheFlowOfSam) {
  for (const Format format : kFormats) {
    Net net(format);
    DeviationMonitor monitor({net.conv->cores(), net.head->cores()});
    net.backward();
    monitor.record();
    const double lr = 1e-7, alpha = 0.3;
    Net plain(format);  // the same step without scaling
    DAS<SGD> das(net.groups(), SGDOptions(lr), ScalingOptions().alpha(alpha));
    das.scaling(2).alpha(0.0);
    das.step();
    plain.backward();
    SGD base(plain.groups(), SGDOptions(lr));
    base.step();
    net.backward();
    monitor.record();
    const at::Tensor bare =
        at::stack({norm_deviation(plain.conv->cores()).deviation(), norm_deviation(plain.head->cores()).deviation()});
    const at::Tensor change = monitor.deviations()[1] - bare;
    EXPECT_LT(distance(change, monitor.rates()[0] * alpha * lr), 1e-5) << format;
  }
}

TEST(TensorizedNet, TrainsWithDasAlsoUnderSam) {
  for (const Format format : kFormats) {
    Net net(format), under_sam(format);
    DeviationMonitor monitor({net.conv->cores(), net.head->cores()});
    const double before = net.loss().item<double>();
    DAS<torch::optim::Adam> das(net.groups(), torch::optim::AdamOptions(0.01), ScalingOptions().alpha(0.1));
    SAM<DAS<torch::optim::Adam>> both(under_sam.groups(), torch::optim::AdamOptions(0.01), Options().rho(0.01));
    das.scaling(2).alpha(0.0);
    both.scaling(2).alpha(0.0);
    for (int step = 0; step < 60; ++step) {
      das.step([&] { return net.backward(); });
      both.step([&] { return under_sam.backward(); });
      monitor.record();
    }
    EXPECT_LT(net.loss().item<double>(), 0.7 * before) << format;
    EXPECT_LT(under_sam.loss().item<double>(), 0.7 * before) << format;
    EXPECT_EQ(monitor.deviations().sizes(), (std::vector<int64_t>{60, 2}));
    EXPECT_TRUE(monitor.deviations().isfinite().all().item<bool>());
  }
}

TEST(TensorizedNet, AnAdaptersCoresAreAGroupOfTwo) {
  torch::nn::Linear linear(12, 5);
  linear->to(at::kDouble);
  LowRankAdapter adapter(*linear, LowRankOptions(3).alpha(6));
  const at::Tensor inputs = random({20, 12}), targets = random({20, 5}, 2);
  DAS<torch::optim::Adam> das(adapter->cores(), torch::optim::AdamOptions(0.02), ScalingOptions().alpha(1.0));
  const at::Tensor frozen = adapter->frozen_weight().clone();
  const auto closure = [&] {
    das.zero_grad();
    at::Tensor loss = (adapter->forward(inputs) - targets).square().mean();
    loss.backward();
    return loss;
  };
  const double before = das.step(closure).item<double>();
  for (int step = 0; step < 100; ++step) das.step(closure);
  EXPECT_LT(closure().item<double>(), 0.7 * before);
  EXPECT_TRUE(adapter->frozen_weight().equal(frozen));
}

}  // namespace
}  // namespace steppe::tensorized
