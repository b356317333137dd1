// SPDX-License-Identifier: MIT
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <steppe/sharpness/loss_surface.hpp>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/dropout.h>
#include <torch/types.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "../errors.hpp"
#include "measurements.hpp"
#include "small_net.hpp"

namespace steppe::sharpness {
namespace {

struct Batch {
  at::Tensor data, target;
};

TEST(LossSurface, BatchesAreAveragedByTheirNumberOfSamples) {
  SmallNet net;
  const std::vector<Batch> batches = {{net.inputs.slice(0, 0, 9), net.targets.slice(0, 0, 9)},
                                      {net.inputs.slice(0, 9, 12), net.targets.slice(0, 9, 12)}};
  const LossSurface whole(*net.model, [&] { return net.loss(); });
  const LossSurface parts(*net.model, batches, [&](const Batch& batch) {
    return torch::cross_entropy_loss(net.model->forward(batch.data), batch.target);
  });
  EXPECT_NEAR(parts.loss(), whole.loss(), 1e-14);
  double loss = 0.0;
  EXPECT_TRUE(at::allclose(parts.gradient(&loss), whole.gradient(), 1e-12, 1e-14));
  EXPECT_NEAR(loss, whole.loss(), 1e-14);
  EXPECT_NEAR((9 * parts.batch(0).loss() + 3 * parts.batch(1).loss()) / 12, whole.loss(), 1e-14);
}

TEST(LossSurface, IsTheSameAtEveryCallThoughTheModelDropsUnitsAndCounts) {
  torch::manual_seed(1);
  torch::nn::Sequential model(torch::nn::Linear(3, 8), torch::nn::BatchNorm1d(8), torch::nn::Dropout(0.5), torch::nn::Linear(8, 1));
  const at::Tensor x = torch::randn({6, 3});
  const LossSurface surface(*model, [&] { return model->forward(x).square().mean(); });
  const double first = surface.loss();
  EXPECT_EQ(surface.loss(), first);
  torch::rand({1});
  EXPECT_NE(surface.loss(), first);  // other masks: the generator has moved between measurements
}

TEST(LossSurface, EveryMeasurementLeavesTheModelBitForBit) {
  torch::manual_seed(1);
  torch::nn::Sequential model(torch::nn::Linear(3, 8), torch::nn::BatchNorm1d(8), torch::nn::Dropout(0.5), torch::nn::Linear(8, 1));
  const at::Tensor x = torch::randn({6, 3});
  model->forward(x).square().mean().backward();
  model[1]->as<torch::nn::BatchNorm1d>()->eval();
  model->parameters()[0].requires_grad_(false);
  model->parameters()[1].mutable_grad() = at::Tensor();
  LossSurface surface(*model, [&] {
    model->train();  // a closure may do so
    return model->forward(x).square().mean();
  });
  surface.only(model->parameters());

  std::vector<at::Tensor> before, gradients;
  for (const at::Tensor& p : model->parameters()) before.push_back(p.detach().clone());
  for (const at::Tensor& b : model->buffers()) before.push_back(b.clone());
  std::vector<const void*> addresses;
  for (const at::Tensor& p : model->parameters()) {
    addresses.push_back(p.data_ptr());
    gradients.push_back(p.grad());
    if (p.grad().defined()) before.push_back(p.grad().clone());
  }
  const at::Tensor generator = at::detail::getDefaultCPUGenerator().get_state();

  for (const auto& [name, measure] : every_measurement()) {
    measure(surface);
    std::vector<at::Tensor> after;
    for (const at::Tensor& p : model->parameters()) after.push_back(p.detach());
    for (const at::Tensor& b : model->buffers()) after.push_back(b);
    for (const at::Tensor& p : model->parameters())
      if (p.grad().defined()) after.push_back(p.grad());
    ASSERT_EQ(after.size(), before.size()) << name;
    for (size_t i = 0; i < after.size(); ++i)
      EXPECT_EQ(std::memcmp(after[i].data_ptr(), before[i].data_ptr(), before[i].nbytes()), 0) << name << " " << i;
    for (size_t i = 0; i < gradients.size(); ++i) {
      EXPECT_EQ(model->parameters()[i].data_ptr(), addresses[i]) << name;
      EXPECT_EQ(model->parameters()[i].grad().unsafeGetTensorImpl(), gradients[i].unsafeGetTensorImpl()) << name;
      EXPECT_EQ(model->parameters()[i].requires_grad(), i != 0) << name;
    }
    EXPECT_TRUE(model->is_training() && !model[1]->is_training() && model[2]->is_training()) << name;
    EXPECT_TRUE(at::detail::getDefaultCPUGenerator().get_state().equal(generator)) << name;
  }
}

TEST(LossSurface, AMeasurementThatThrowsLeavesTheModelToo) {
  SmallNet net;
  const at::Tensor before = net.model->parameters()[0].detach().clone();
  for (const auto& [name, measure] : every_measurement()) {
    int calls = 0;
    const LossSurface surface(*net.model, [&] {
      if (++calls > 1) throw std::runtime_error("on purpose");
      return net.loss();
    });
    EXPECT_NE(message_of([&, &measure = measure] { measure(surface); }).find("on purpose"), std::string::npos) << name;
    EXPECT_TRUE(net.model->parameters()[0].equal(before)) << name;
  }
}

TEST(LossSurface, MeasuresAlongTheChosenParametersOnlyEachOnce) {
  SmallNet net;
  const std::vector<at::Tensor> params = net.model->parameters();
  LossSurface surface(*net.model, [&] { return net.loss(); });
  EXPECT_EQ(surface.numel(), 26);
  EXPECT_EQ(surface.only({params[1], params[1]}).numel(), 4);
  net.loss().backward();
  EXPECT_TRUE(at::allclose(surface.gradient(), params[1].grad(), 1e-12, 1e-14));
}

TEST(LossSurface, TellsOfItsProgress) {
  SmallNet net;
  std::string what;
  int64_t last = 0;
  LossSurface surface(*net.model, [&] { return net.loss(); });
  surface.progress([&](const char* name, int64_t done, int64_t total) {
    what = name;
    EXPECT_EQ(done, ++last);
    EXPECT_EQ(total, 7);
  });
  trace(Hessian(surface), TraceOptions().vectors(7));
  EXPECT_EQ(what, "trace");
  EXPECT_EQ(last, 7);
}

TEST(LossSurface, FlatVectorsAreFloat32ForHalvesAndFloat64WhereAParameterIs) {
  const at::Tensor half = torch::ones({2}, at::kBFloat16).requires_grad_(true);
  const at::Tensor wide = torch::ones({3}, at::kDouble).requires_grad_(true);
  const auto loss = [&] { return half.square().sum().to(at::kDouble) + wide.square().sum(); };
  EXPECT_EQ(LossSurface({half}, loss).gradient().scalar_type(), at::kFloat);
  const LossSurface both({half, wide}, loss);
  EXPECT_TRUE(both.gradient().equal(torch::full({5}, 2.0, at::kDouble)));
  EXPECT_EQ(both.parts(both.gradient())[0].scalar_type(), at::kBFloat16);
}

TEST(LossSurface, ErrorsNameWhatIsWrong) {
  SmallNet net;
  const auto complains = [](const std::string& words, auto&& call) {
    const std::string message = message_of(call);
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  complains("at least one parameter", [&] { LossSurface(std::vector<at::Tensor>{}, [&] { return net.loss(); }); });
  complains("leaf tensors", [&] { LossSurface({torch::ones({2}, at::kComplexFloat)}, [&] { return net.loss(); }); });
  complains("at least one batch", [&] { LossSurface(*net.model, std::vector<int64_t>{}, [&](size_t) { return net.loss(); }); });
  complains("at least one sample, got 0", [&] { LossSurface(*net.model, std::vector<int64_t>{0}, [&](size_t) { return net.loss(); }); });
  complains("no graph", [&] { LossSurface(*net.model, [&] { return net.loss().detach(); }).gradient(); });
  complains("one number", [&] { LossSurface(*net.model, [&] { return net.model->forward(net.inputs); }).loss(); });
  const LossSurface surface(*net.model, [&] { return net.loss(); });
  complains("does not fit", [&] { surface.parts(torch::ones({3})); });
  complains("no batch 1", [&] { surface.batch(1); });
}

}  // namespace
}  // namespace steppe::sharpness
