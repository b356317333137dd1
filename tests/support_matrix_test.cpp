// The table of what is supported in docs/limits.md, row by row.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/cuda.h>
#include <torch/nn/functional/embedding.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/sgd.h>

#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "errors.hpp"
#include "parameter.hpp"

namespace steppe {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.detach().cpu().contiguous(), y = b.detach().cpu().contiguous();
  return x.sizes() == y.sizes() && (x.numel() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0);
}

/// One SAM, ZSharp, GCSAM and ASAM step with lr 0: every parameter moves in pass 2 and is w again after it.
void expect_moved_and_restored(const std::vector<at::Tensor>& params, const std::function<at::Tensor()>& loss_of) {
  const auto run = [&](auto& optimizer, const std::string& name) {
    std::vector<at::Tensor> before, perturbed;
    std::vector<void*> addresses;
    std::vector<std::vector<int64_t>> strides;
    for (const at::Tensor& param : params) {
      before.push_back(param.detach().clone());
      addresses.push_back(param.data_ptr());
      strides.push_back(param.strides().vec());
    }
    int pass = 0;
    optimizer.step([&] {
      if (++pass == 2)
        for (const at::Tensor& param : params) perturbed.push_back(param.detach().clone());
      at::Tensor loss = loss_of();
      loss.backward();
      return loss;
    });
    ASSERT_EQ(pass, 2) << name;
    for (size_t i = 0; i < params.size(); ++i) {
      EXPECT_TRUE(params[i].numel() == 0 || !same_bits(perturbed[i], before[i])) << name << ", parameter " << i;
      EXPECT_TRUE(same_bits(params[i], before[i])) << name << ", parameter " << i;
      EXPECT_EQ(params[i].data_ptr(), addresses[i]) << name << ", parameter " << i;
      EXPECT_EQ(params[i].strides().vec(), strides[i]) << name << ", parameter " << i;
    }
  };
  SAM<SGD> sam(params, SGDOptions(0.0), Options().rho(0.5));
  run(sam, "SAM");
  ZSharp<SGD> zsharp(params, SGDOptions(0.0), Options().rho(0.5), ascent::ZScoreFilter().percentile(0.5));
  run(zsharp, "ZSharp");
  GCSAM<SGD> gcsam(params, SGDOptions(0.0), Options().rho(0.5));
  run(gcsam, "GCSAM");
  ASAM<SGD> asam(params, SGDOptions(0.0), Options().rho(0.5));
  run(asam, "ASAM");
}

void expect_dtype_works(at::ScalarType dtype) {
  torch::manual_seed(1);
  const at::Tensor w = parameter(torch::randn({6, 5}).to(dtype)), b = parameter(torch::randn({4}).to(dtype));
  expect_moved_and_restored({w, b}, [&] { return w.to(at::kDouble).pow(3).sum() + b.to(at::kDouble).pow(2).sum(); });
}

TEST(SupportMatrix, Float32) { expect_dtype_works(at::kFloat); }
TEST(SupportMatrix, Float64) { expect_dtype_works(at::kDouble); }
TEST(SupportMatrix, BFloat16) { expect_dtype_works(at::kBFloat16); }
TEST(SupportMatrix, Half) { expect_dtype_works(at::kHalf); }

TEST(SupportMatrix, MixedDtypesInOneOptimizer) {
  torch::manual_seed(2);
  const at::Tensor a = parameter(torch::randn({4, 4})), b = parameter(torch::randn({4, 4}).to(at::kBFloat16)),
                   c = parameter(torch::randn({4, 4}, at::kDouble));
  expect_moved_and_restored(
      {a, b, c}, [&] { return a.to(at::kDouble).pow(3).sum() + b.to(at::kDouble).pow(3).sum() + c.pow(3).sum(); });
}

TEST(SupportMatrix, Complex) {
  torch::manual_seed(3);
  for (const auto dtype : {at::kComplexFloat, at::kComplexDouble}) {
    const at::Tensor w = parameter(torch::randn({4, 3}, dtype));
    expect_moved_and_restored({w}, [&] { return w.abs().pow(3).sum(); });
  }
}

TEST(SupportMatrix, ComplexWithTheRobustScoreIsAClearError) {
  const at::Tensor w = parameter(torch::randn({4, 3}, at::kComplexFloat));
  const at::Tensor before = w.detach().clone();
  ZSharp<SGD> zsharp(std::vector<at::Tensor>{w}, SGDOptions(0.1), {}, ascent::ZScoreFilter().z_score(ZScore::Robust));
  EXPECT_NE(message_of([&] {
              zsharp.step([&] {
                at::Tensor loss = w.abs().sum();
                loss.backward();
                return loss;
              });
            }).find("complex gradients do not have"),
            std::string::npos);
  EXPECT_TRUE(same_bits(w, before));
}

TEST(SupportMatrix, ChannelsLast) {
  torch::manual_seed(4);
  const at::Tensor w = parameter(torch::randn({4, 3, 2, 2}).contiguous(at::MemoryFormat::ChannelsLast));
  expect_moved_and_restored({w}, [&] { return w.pow(3).sum(); });
}

TEST(SupportMatrix, NonContiguousParameters) {
  torch::manual_seed(5);
  const at::Tensor transposed = parameter(torch::randn({5, 4}).t());
  const at::Tensor storage = torch::randn({6, 8});
  const at::Tensor strided = storage.slice(1, 0, 8, 2).detach().requires_grad_();
  expect_moved_and_restored({transposed, strided}, [&] { return transposed.pow(3).sum() + strided.pow(3).sum(); });
}

TEST(SupportMatrix, ZeroSizeAndScalarParameters) {
  torch::manual_seed(6);
  const at::Tensor empty = parameter(torch::empty({0, 3})), scalar = parameter(torch::tensor(2.0f)),
                   w = parameter(torch::randn({3, 3}));
  expect_moved_and_restored({empty, scalar, w}, [&] { return empty.sum() + scalar.pow(3) + w.pow(3).sum(); });
}

TEST(SupportMatrix, OnlyZeroSizeParameters) {
  const at::Tensor empty = parameter(torch::empty({0, 3}));
  ZSharp<SGD> zsharp(std::vector<at::Tensor>{empty}, SGDOptions(0.1));
  EXPECT_NO_THROW(zsharp.step([&] {
    at::Tensor loss = empty.sum();
    loss.backward();
    return loss;
  }));
}

TEST(SupportMatrix, SparseGradientsAreThePerturbationOfTheirDenseForm) {
  torch::manual_seed(7);
  const at::Tensor start = torch::randn({10, 4}, at::kDouble), rows = torch::tensor({1, 1, 7}, at::kLong);
  const auto train = [&](bool sparse, auto make) {
    const at::Tensor table = parameter(start.clone());
    auto optimizer = make(std::vector<at::Tensor>{table});
    for (int i = 0; i < 3; ++i)
      optimizer.step([&] {
        at::Tensor loss = at::embedding(table, rows, -1, false, sparse).pow(3).sum();
        loss.backward();
        EXPECT_EQ(table.grad().is_sparse(), sparse);
        return loss;
      });
    return table.detach();
  };
  const auto sam = [](const auto& params) { return SAM<SGD>(params, SGDOptions(0.1), Options().rho(0.3)); };
  const auto zsharp = [](const auto& params) {
    return ZSharp<torch::optim::Adagrad>(params, torch::optim::AdagradOptions(0.1), Options().rho(0.3));
  };
  EXPECT_TRUE(at::allclose(train(true, sam), train(false, sam), 1e-12, 1e-14));
  EXPECT_TRUE(at::allclose(train(true, zsharp), train(false, zsharp), 1e-12, 1e-14));
}

TEST(SupportMatrix, SparseParametersAreAClearError) {
  const at::Tensor w = torch::eye(3).to_sparse().requires_grad_();
  EXPECT_NE(message_of([&] { SAM<SGD>(std::vector<at::Tensor>{w}, SGDOptions(0.1)); }).find("must be dense"),
            std::string::npos);
}

TEST(SupportMatrix, FrozenParametersAreLeftAlone) {
  const at::Tensor frozen = torch::ones({3}), w = parameter(torch::ones({3}));
  SAM<SGD> sam(std::vector<at::Tensor>{frozen, w}, SGDOptions(0.1));
  sam.step([&] {
    EXPECT_TRUE(frozen.eq(1).all().item<bool>());
    at::Tensor loss = (frozen * w).square().sum();
    loss.backward();
    return loss;
  });
  EXPECT_FALSE(w.eq(1).any().item<bool>());
}

TEST(SupportMatrix, SeveralDevicesInOneOptimizer_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  torch::manual_seed(8);
  const at::Tensor a = parameter(torch::randn({4, 5})), b = parameter(torch::randn({4, 5}, at::kCUDA));
  expect_moved_and_restored({a, b}, [&] { return a.pow(3).sum() + b.pow(3).sum().cpu(); });
}

/// What one step saw, on the CPU.
struct Seen {
  std::vector<at::Tensor> perturbed;
  at::Tensor gradient_norm, perturbation_norm, kept_share;
};

/// A step over tensors on the given devices; the tensors are the same whatever the devices.
template <class Ascent>
Seen step_over(const std::vector<at::Device>& devices, const Options& options, const Ascent& ascent) {
  torch::manual_seed(8);
  std::vector<at::Tensor> params;
  for (size_t i = 0; i < devices.size(); ++i)
    params.push_back(parameter(torch::randn({4 + static_cast<int64_t>(i), 5}).to(devices[i])));
  SharpnessAware<SGD, Ascent> optimizer(params, SGDOptions(0.1), options, ascent);
  Seen seen;
  optimizer.step([&] {
    seen.perturbed.clear();  // pass 2 comes last
    at::Tensor loss = torch::zeros({});
    for (const at::Tensor& param : params) {
      seen.perturbed.push_back(param.detach().cpu().clone());
      loss = loss + param.pow(3).sum().cpu();
    }
    loss.backward();
    return loss;
  });
  seen.gradient_norm = optimizer.report().gradient_norm.cpu();
  seen.perturbation_norm = optimizer.report().perturbation_norm.cpu();
  seen.kept_share = optimizer.report().kept_share.cpu();
  EXPECT_EQ(optimizer.non_finite_steps(), 0);
  return seen;
}

void expect_one_norm_over(const std::vector<at::Device>& devices) {
  const auto expect_the_cpus = [&](const Options& options, const auto& ascent) {
    const Seen ours = step_over(devices, options, ascent);
    const Seen expected = step_over(std::vector<at::Device>(devices.size(), at::kCPU), options, ascent);
    EXPECT_TRUE(at::allclose(ours.gradient_norm, expected.gradient_norm, 1e-6));
    EXPECT_TRUE(at::allclose(ours.perturbation_norm, expected.perturbation_norm, 1e-6));
    EXPECT_TRUE(at::allclose(ours.kept_share, expected.kept_share));
    for (size_t i = 0; i < devices.size(); ++i)
      EXPECT_TRUE(at::allclose(ours.perturbed[i], expected.perturbed[i], 1e-5, 1e-6)) << i;
  };
  const Options options = Options().rho(0.5);
  expect_the_cpus(options, ascent::Gradient());
  expect_the_cpus(Options().rho(0.5).p(std::numeric_limits<double>::infinity()), ascent::Gradient());
  expect_the_cpus(options, ascent::Centralize());
  expect_the_cpus(options, ascent::AdaptiveScale());
  const auto filter = ascent::ZScoreFilter().percentile(0.5);
  expect_the_cpus(options, filter);
  expect_the_cpus(options, ascent::ZScoreFilter(filter).threshold(Threshold::Global));
  expect_the_cpus(options, ascent::ZScoreFilter(filter).norm(Norm::PerTensor));
}

TEST(SupportMatrix, ACpuAndAGpuShareOneNorm_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  expect_one_norm_over({at::kCPU, at::kCUDA, at::kCPU});
  expect_one_norm_over({at::kCUDA, at::kCPU});
}

TEST(SupportMatrix, TwoGpusShareOneNorm_CUDA) {
  if (torch::cuda::device_count() < 2) GTEST_SKIP() << "needs two GPUs";
  const at::Device first(at::kCUDA, 0), second(at::kCUDA, 1);
  expect_one_norm_over({first, second, first});
  expect_one_norm_over({second, first});
  expect_one_norm_over({second, second});  // and not the current device
}

TEST(SupportMatrix, DropoutMasksAreReplayedOnTheGpu_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  torch::manual_seed(9);
  const at::Tensor w = parameter(torch::randn({64}, at::kCUDA));
  SAM<SGD> sam(std::vector<at::Tensor>{w}, SGDOptions(0.0), Options().rho(1e-300));
  sam.step([&] {
    at::Tensor loss = at::dropout(w.square(), 0.5, true).sum();
    loss.backward();
    return loss;
  });
  EXPECT_EQ(sam.report().sharpness.item<double>(), 0.0);
}

}  // namespace
}  // namespace steppe
