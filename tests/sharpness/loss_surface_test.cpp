// SPDX-License-Identifier: MIT
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <steppe/sharpness/loss_surface.hpp>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <list>
#include <stdexcept>
#include <string>
#include <vector>

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

TEST(LossSurface, WhatAForwardWritesIntoItsWeightsIsTakenBack) {
  torch::manual_seed(2);
  torch::nn::Embedding table(torch::nn::EmbeddingOptions(12, 4).max_norm(1.0));
  torch::nn::Linear layer(4, 3);
  torch::nn::Sequential model(table, layer);
  layer->bias.requires_grad_(false);
  const at::Tensor ids = torch::arange(12);
  // Spectral norm by hand: in place without a gradient, through data(), with other memory.
  const std::vector<std::function<void()>> norms = {
      [&] {
        const at::NoGradGuard no_grad;
        layer->weight.div_(layer->weight.norm());
      },
      [&] { layer->bias.data().add_(1.0); },
      [&] { layer->weight.set_data(layer->weight.detach() / layer->weight.detach().norm()); }};
  for (const auto& normalise : norms)
    for (const auto& [name, measure] : every_measurement()) {
      std::vector<at::Tensor> before;
      std::vector<const void*> addresses;
      for (const at::Tensor& p : model->parameters()) {
        before.push_back(p.detach().clone());
        addresses.push_back(p.data_ptr());
      }
      int calls = 0;
      const auto loss = [&](bool throws) {
        normalise();
        const at::Tensor features = table->forward(ids);
        if (throws && ++calls == 2) throw std::runtime_error("on purpose");
        return layer->forward(features).square().mean();
      };
      measure(LossSurface(*model, [&] { return loss(false); }));
      message_of([&, &take = measure] { take(LossSurface(*model, [&] { return loss(true); })); });
      for (size_t i = 0; i < before.size(); ++i) {
        const at::Tensor p = model->parameters()[i];
        EXPECT_EQ(p.data_ptr(), addresses[i]) << name << " " << i;
        EXPECT_EQ(std::memcmp(p.data_ptr(), before[i].data_ptr(), before[i].nbytes()), 0) << name << " " << i;
      }
    }
}

TEST(LossSurface, EveryBatchSeesTheWeightsThoughTheOneBeforeHasWrittenThem) {
  const at::Tensor w = torch::ones({3}, at::kDouble).requires_grad_(true);
  torch::nn::Linear unused(1, 1);
  std::vector<at::Tensor> seen;
  LossSurface surface(*unused, std::vector<int64_t>{1, 1}, [&](size_t) {
    seen.push_back(w.detach().clone());
    {
      const at::NoGradGuard no_grad;
      w.div_(w.norm());
    }
    return w.square().sum();
  });
  surface.only({w});
  const auto expect_pairs = [&] {
    for (size_t i = 0; i < seen.size(); i += 2) EXPECT_TRUE(seen[i].equal(seen[i + 1])) << i;
  };
  surface.gradient();
  expect_pairs();
  const Hessian hessian(surface, Derivative::Differences);
  seen.clear();
  hessian.times(torch::ones({3}, at::kDouble));  // at two places beside w
  ASSERT_EQ(seen.size(), 4U);
  EXPECT_FALSE(seen[0].equal(seen[2]));
  expect_pairs();
}

TEST(LossSurface, BuffersThatBelongToNoModuleComeBackWhereAttached) {
  const at::Tensor w = torch::ones({3}).requires_grad_(true), x = torch::randn({8, 3});
  const std::vector<at::Tensor> buffers = {torch::zeros({3}), torch::ones({3}), at::Tensor()};
  const auto loss = [&] { return torch::batch_norm(x * w, {}, {}, buffers[0], buffers[1], true, 0.1, 1e-5, false).pow(4).mean(); };
  LossSurface surface({w}, loss), as_range({w}, loss);
  surface.attach(buffers);
  as_range.attach(std::list<at::Tensor>(buffers.begin(), buffers.end()));
  for (const LossSurface& one : {surface, as_range})
    for (const auto& [name, measure] : every_measurement()) {
      measure(one);
      EXPECT_TRUE(buffers[0].equal(torch::zeros({3})) && buffers[1].equal(torch::ones({3}))) << name;
    }
}

TEST(LossSurface, AForwardOutsideOfTheClosureIsAnErrorOfEveryMeasurement) {
  SmallNet net;
  const std::vector<at::Tensor> before = net.weights();
  const at::Tensor outputs = net.model->forward(net.inputs), loss = torch::cross_entropy_loss(outputs, net.targets);
  for (const auto& [name, measure] : every_measurement())
    for (const LossSurface& surface :
         {LossSurface(*net.model, [&] { return loss; }), LossSurface(*net.model, [&] { return torch::cross_entropy_loss(outputs, net.targets); })})
      EXPECT_NE(message_of([&, &take = measure] { take(surface); }).find("compute it inside of the closure"), std::string::npos) << name;
  net.expect_untouched(before);
  // A flat loss, and values computed before from other parameters, are no errors.
  const at::Tensor frozen = torch::ones({2}, at::kDouble).requires_grad_(true), scale = frozen.exp().sum();
  for (const double factor : {1.0, 0.0})
    for (const auto& [name, measure] : every_measurement())
      EXPECT_EQ(message_of([&, &take = measure] { take(LossSurface(*net.model, [&] { return net.loss() * scale.detach() * factor + (factor > 0 ? scale : scale * 0); })); }), "") << name;
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
    EXPECT_NE(message_of([&, &take = measure] { take(surface); }).find("on purpose"), std::string::npos) << name;
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
