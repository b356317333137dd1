// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/parameter_roles.hpp>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <vector>

namespace steppe {
namespace {

/// A layer of a user's own, known by its name.
struct RMSNormImpl : torch::nn::Module {
  RMSNormImpl() { gain = register_parameter("gain", torch::ones({4})); }
  at::Tensor gain;
};

/// Not a normalization layer, despite its name.
struct NormalizedHead : torch::nn::Module {
  NormalizedHead() { scale = register_parameter("scale", torch::ones({4})); }
  at::Tensor scale;
};

struct Model : torch::nn::Module {
  Model() {
    linear = register_module("linear", torch::nn::Linear(4, 4));
    batch_norm = register_module("batch_norm", torch::nn::BatchNorm1d(4));
    layer_norm = register_module("layer_norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({4})));
    rms = register_module("rms", std::make_shared<RMSNormImpl>());
    head = register_module("head", std::make_shared<NormalizedHead>());
    in_proj_bias = register_parameter("in_proj_bias", torch::ones({4}));
  }
  torch::nn::Linear linear{nullptr};
  torch::nn::BatchNorm1d batch_norm{nullptr};
  torch::nn::LayerNorm layer_norm{nullptr};
  std::shared_ptr<RMSNormImpl> rms;
  std::shared_ptr<NormalizedHead> head;
  at::Tensor in_proj_bias;
};

bool holds_exactly(const std::vector<at::Tensor>& found, const std::vector<at::Tensor>& expected) {
  if (found.size() != expected.size()) return false;
  for (const at::Tensor& wanted : expected)
    if (std::none_of(found.begin(), found.end(), [&](const at::Tensor& t) { return t.is_same(wanted); })) return false;
  return true;
}

TEST(ParameterRoles, TellBiasesNormsAndGainsApart) {
  const auto owned = std::make_shared<Model>();
  const Model on_stack;
  for (const Model* m : {static_cast<const Model*>(owned.get()), &on_stack}) {
    const auto& bn = m->batch_norm;
    const auto& ln = m->layer_norm;
    EXPECT_TRUE(holds_exactly(biases(*m), {m->in_proj_bias, m->linear->bias, bn->bias, ln->bias}));
    EXPECT_TRUE(holds_exactly(norms(*m), {bn->weight, bn->bias, ln->weight, ln->bias, m->rms->gain}));
    EXPECT_TRUE(holds_exactly(norm_gains(*m), {bn->weight, ln->weight, m->rms->gain}));
    EXPECT_TRUE(holds_exactly(biases_and_norms(*m), {m->in_proj_bias, m->linear->bias, bn->weight, bn->bias, ln->weight,
                                                     ln->bias, m->rms->gain}));
  }
}

TEST(ParameterRoles, AModelThatIsOneLayerIsItsOwnOwner) {
  const torch::nn::BatchNorm2d alone(3);
  EXPECT_TRUE(holds_exactly(norm_gains(*alone), {alone->weight}));
}

}  // namespace
}  // namespace steppe
