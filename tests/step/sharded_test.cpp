// Steps over parameters of which every process holds a part, compared with one process with the whole.
// SPDX-License-Identifier: MIT
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>

#include "../errors.hpp"
#include "thread_exchange.hpp"

namespace steppe {
namespace {

using torch::optim::SGD;

/// A quadratic loss for every parameter, so that the gradient of a part needs nothing of the others: sum a (w - b)^2.
struct Whole {
  explicit Whole(at::ScalarType dtype = at::kFloat) {
    torch::manual_seed(2);
    for (const std::vector<int64_t>& sizes : std::vector<std::vector<int64_t>>{{7, 5}, {11}, {3, 4, 2, 2}, {9, 1}}) {
      params.push_back(torch::randn(sizes).to(dtype).requires_grad_());
      scale.push_back(torch::rand(sizes).to(dtype) + 0.5);
      target.push_back(torch::randn(sizes).to(dtype));
    }
  }
  std::vector<at::Tensor> params, scale, target;
};

/// How the parameters are distributed: flat pieces whose borders lie within rows, the last parameter whole everywhere.
struct Part {
  Part(const Whole& whole, int64_t process, int64_t processes) {
    for (size_t i = 0; i < whole.params.size(); ++i) {
      const int64_t n = whole.params[i].numel();
      const bool replicated = i + 1 == whole.params.size();
      const int64_t from = replicated ? 0 : n * process / processes,
                    to = replicated ? n : n * (process + 1) / processes;
      const auto cut = [&](const at::Tensor& x) { return x.detach().flatten().narrow(0, from, to - from).clone(); };
      params.push_back(cut(whole.params[i]).requires_grad_());
      scale.push_back(cut(whole.scale[i]));
      target.push_back(cut(whole.target[i]));
      shards.push_back({params.back(), whole.params[i].sizes().vec(), from, replicated});
    }
  }
  std::vector<at::Tensor> params, scale, target;
  std::vector<Shard> shards;
};

at::Tensor backward(const std::vector<at::Tensor>& params, const std::vector<at::Tensor>& scale,
                    const std::vector<at::Tensor>& target) {
  at::Tensor loss;
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor part = (scale[i] * (params[i] - target[i]).square()).sum();
    loss = loss.defined() ? loss + part : part;
  }
  loss.backward();
  return loss.detach();
}

template <class Optimizer>
using Settings = std::function<void(Optimizer&)>;

constexpr int kSteps = 4;

/// The largest difference from one process with the whole, over all processes.
template <class Optimizer>
double difference(int64_t processes, at::ScalarType dtype, const Settings<Optimizer>& settings,
                  std::vector<double>* reports = nullptr) {
  Whole whole(dtype);
  const Whole start(dtype);
  Optimizer reference(whole.params, torch::optim::SGDOptions(0.05).momentum(0.9));
  settings(reference);
  for (int k = 0; k < kSteps; ++k) reference.step([&] { return backward(whole.params, whole.scale, whole.target); });

  std::vector<std::unique_ptr<Part>> parts;
  for (int64_t r = 0; r < processes; ++r) parts.push_back(std::make_unique<Part>(start, r, processes));
  std::vector<double> norms(static_cast<size_t>(processes));
  const auto errors = run_processes(processes, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
    Part& part = *parts[static_cast<size_t>(r)];
    Optimizer optimizer(part.params, torch::optim::SGDOptions(0.05).momentum(0.9));
    settings(optimizer);
    optimizer.sharded([exchange](at::Tensor& numbers) { exchange->sum(numbers); }, part.shards);
    for (int k = 0; k < kSteps; ++k) optimizer.step([&] { return backward(part.params, part.scale, part.target); });
    norms[static_cast<size_t>(r)] = optimizer.report().perturbation_norm.template item<double>();
    if (reports != nullptr && r == 0)
      *reports = {optimizer.report().gradient_norm.template item<double>(),
                  optimizer.report().kept_share.template item<double>(),
                  reference.report().gradient_norm.template item<double>(),
                  reference.report().kept_share.template item<double>()};
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
  double largest = 0.0;
  for (size_t i = 0; i < whole.params.size(); ++i) {
    std::vector<at::Tensor> pieces;
    for (const auto& part : parts) pieces.push_back(part->params[i].detach());
    if (i + 1 == whole.params.size()) pieces.resize(1);
    const at::Tensor together = at::cat(pieces).view(whole.params[i].sizes());
    largest = (std::max)(largest, (together - whole.params[i].detach()).abs().max().item<double>());
  }
  for (const double norm : norms) EXPECT_NEAR(norm, reference.report().perturbation_norm.template item<double>(), 1e-5);
  return largest;
}

template <class Optimizer>
void expect_the_whole(const Settings<Optimizer>& settings = [](Optimizer&) {}) {
  const auto with_radius = [&](Optimizer& optimizer) {
    optimizer.options().rho(0.4);
    settings(optimizer);
  };
  for (const int64_t processes : {1, 2, 3}) {
    EXPECT_LT(difference<Optimizer>(processes, at::kFloat, with_radius), 2e-6) << processes;
    EXPECT_LT(difference<Optimizer>(processes, at::kDouble, with_radius), 1e-12) << processes;
  }
}

TEST(AShardedStep, OfSAMIsThatOfTheWhole) {
  expect_the_whole<SAM<SGD>>();
  expect_the_whole<SAM<SGD>>([](SAM<SGD>& sam) { sam.options().p(3.0); });
  expect_the_whole<SAM<SGD>>([](SAM<SGD>& sam) { sam.options().p(std::numeric_limits<double>::infinity()); });
  expect_the_whole<SAM<SGD>>([](SAM<SGD>& sam) { sam.ascents(2); });
}

TEST(AShardedStep, OfASAMIsThatOfTheWhole) {
  expect_the_whole<ASAM<SGD>>();
  expect_the_whole<ASAM<SGD>>([](ASAM<SGD>& sam) { sam.ascent() = ascent::AdaptiveScale::davda54(); });
}

TEST(AShardedStep, OfGCSAMIsThatOfTheWholeThoughRowsAreCut) { expect_the_whole<GCSAM<SGD>>(); }

TEST(AShardedStep, OfZSharpIsThatOfTheWhole) {
  for (const double percentile : {0.0, 0.5, 0.8, 0.95})
    expect_the_whole<ZSharp<SGD>>([=](ZSharp<SGD>& sam) { sam.ascent().percentile(percentile).min_dim(1); });
  expect_the_whole<ZSharp<SGD>>([](ZSharp<SGD>& sam) { sam.ascent() = ascent::ZScoreFilter::released_code(); });
  expect_the_whole<ZSharp<SGD>>([](ZSharp<SGD>& sam) { sam.ascent().percentile(0.7).threshold(Threshold::Global); });
}

TEST(AShardedStep, OfACompositionIsThatOfTheWhole) {
  using Composed = SharpnessAware<SGD, ascent::Chain<ascent::Centralize, ascent::ZScoreFilter, ascent::AdaptiveScale>>;
  expect_the_whole<Composed>([](Composed& sam) { sam.options().rho(0.3); });
}

TEST(AShardedStep, ReportsTheWhole) {
  std::vector<double> seen;
  difference<ZSharp<SGD>>(
      2, at::kFloat, [](ZSharp<SGD>& sam) { sam.ascent().percentile(0.5); }, &seen);
  EXPECT_NEAR(seen[0], seen[2], 1e-5);
  EXPECT_NEAR(seen[1], seen[3], 1e-9);
}

TEST(AShardedStep, ClipsByTheNormOfTheWhole) {
  expect_the_whole<SAM<SGD>>([](SAM<SGD>& sam) { sam.clip_grad_norm(0.7); });
  expect_the_whole<SAM<SGD>>([](SAM<SGD>& sam) { sam.clip_grad_norm(0.7, 3.0); });
}

TEST(AShardedStep, OfAnAdaptivePolicyIsDecidedByTheWhole) {
  expect_the_whole<AESAM<SGD>>([](AESAM<SGD>& sam) { sam.policy().total(4); });
}

TEST(AShardedStep, IsMadeByAProcessWithoutAGradient) {
  const Whole start;
  std::vector<std::unique_ptr<Part>> parts;
  for (int64_t r = 0; r < 2; ++r) parts.push_back(std::make_unique<Part>(start, r, 2));
  const auto errors = run_processes(2, [&](const std::shared_ptr<ThreadExchange>& exchange, int64_t r) {
    Part& part = *parts[static_cast<size_t>(r)];
    ZSharp<SGD> sam(part.params, torch::optim::SGDOptions(0.05));
    sam.sharded([exchange](at::Tensor& numbers) { exchange->sum(numbers); }, part.shards);
    sam.step([&] { return r == 1 ? at::Tensor() : backward(part.params, part.scale, part.target); });
    EXPECT_TRUE(sam.report().perturbed);
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

template <class Optimizer>
std::string refusal(const Settings<Optimizer>& settings = [](Optimizer&) {}) {
  Whole whole;
  Optimizer optimizer(whole.params, torch::optim::SGDOptions(0.05));
  optimizer.sharded([](at::Tensor&) {});
  settings(optimizer);
  return message_of([&] { optimizer.step([&] { return backward(whole.params, whole.scale, whole.target); }); });
}

TEST(AShardedStep, ThatNeedsMoreThanSumsIsAnErrorThatSaysSo) {
  EXPECT_NE(refusal<FriendlySAM<SGD>>().find("custom links"), std::string::npos) << refusal<FriendlySAM<SGD>>();
  EXPECT_NE(refusal<GSAM<SGD>>().find("descent"), std::string::npos);
  EXPECT_NE(refusal<GCSAM<SGD>>([](GCSAM<SGD>& sam) { sam.descent().center_descent(true); }).find("descent"),
            std::string::npos);
  EXPECT_NE(refusal<ZSharp<SGD>>([](ZSharp<SGD>& sam) { sam.ascent().energy(0.5); }).find("energy"), std::string::npos);
  Whole whole;
  SAM<SGD> sam(whole.params, torch::optim::SGDOptions(0.05));
  EXPECT_NE(message_of([&] { sam.sharded([](at::Tensor& x) { x.zero_(); }); }).find("in place"), std::string::npos);
  EXPECT_NE(message_of([&] {
              sam.sharded([](at::Tensor&) {}, {{whole.params[0], {2, 2}, 0, false}});
            }).find("does not lie in a whole"),
            std::string::npos);
}

}  // namespace
}  // namespace steppe
