// The worked examples of the methods, in float64.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

#include <cmath>
#include <vector>

namespace steppe {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

/// The gradients of the worked example as the gradients of a linear loss; returns e of one step.
template <class Optimizer, class... Settings>
std::vector<at::Tensor> worked_example(Settings... settings) {
  const std::vector<at::Tensor> g = {
      torch::tensor({{0.1, -0.2, 0.3, -0.4}, {0.5, -0.6, 0.7, 5.0}}, at::kDouble),
      torch::tensor({{0.02, -0.01, 0.04}, {0.0, 0.03, -0.05}}, at::kDouble), torch::tensor({0.2, -0.1}, at::kDouble)};
  std::vector<at::Tensor> w, e;
  for (const at::Tensor& each : g) w.push_back(torch::zeros_like(each).requires_grad_());
  Optimizer optimizer(w, SGDOptions(0.0), Options().rho(0.05), settings...);
  int pass = 0;
  optimizer.step([&] {
    if (++pass == 2)
      for (const at::Tensor& each : w) e.push_back(each.detach().clone());
    at::Tensor loss = (w[0] * g[0]).sum() + (w[1] * g[1]).sum() + (w[2] * g[2]).sum();
    loss.backward();
    return loss;
  });
  EXPECT_EQ(pass, 2);
  return e;
}

/// Published numbers that have an epsilon added to a norm, without it: x (norm + epsilon) / norm.
void expect_values(const at::Tensor& e, const std::vector<double>& published, double epsilon, double norm) {
  const at::Tensor flat = e.flatten().contiguous();
  ASSERT_EQ(flat.numel(), static_cast<int64_t>(published.size()));
  for (size_t i = 0; i < published.size(); ++i)
    EXPECT_NEAR(flat.data_ptr<double>()[i], published[i] * (norm + epsilon) / norm, 1e-12) << "element " << i;
}

const double kRawNorm = 5.143491032363136;

TEST(ZSharp, MatchesTheWorkedExample) {
  const auto e = worked_example<ZSharp<SGD>>(ascent::ZScoreFilter().percentile(0.75));
  const double norm = std::sqrt(0.36 + 25.0 + 0.0016 + 0.0025 + 0.05);
  expect_values(e[0], {0, 0, 0, 0, 0, -0.005950916912473857, 0, 0.04959097427061548}, 1e-8, norm);
  expect_values(e[1], {0, 0, 0.00039672779416492386, 0, 0, -0.0004959097427061549}, 1e-8, norm);
  expect_values(e[2], {0.0019836389708246197, -0.0009918194854123099}, 1e-8, norm);
}

TEST(ZSharp, ReleasedCodeMatchesTheWorkedExample) {
  const auto e = worked_example<ZSharp<SGD>>(ascent::ZScoreFilter::released_code().percentile(0.75));
  expect_values(e[0], {0, 0, 0, 0, 0, -0.005957261030920349, 0, 0.04964384192433624}, 0.0, 1.0);
  expect_values(e[1], {0, 0, 0.031234752377233405, 0, 0, -0.03904344047154176}, 0.0, 1.0);
  expect_values(e[2], {0.0019442048089668073, -0.0009721024044834037}, 1e-12, kRawNorm);
  double squared = 0.0;
  for (const at::Tensor& each : e) squared += each.square().sum().item<double>();
  EXPECT_NEAR(std::sqrt(squared), 0.0707440804, 1e-9);
}

TEST(GCSAM, MatchesTheWorkedExample) {
  const auto e = worked_example<GCSAM<SGD>>();
  expect_values(e[0][0], {0.001738808974142178, -0.0017388089741421776, 0.00405722093966508, -0.004057220939665081},
                1e-12, 4.313297269297971);
}

TEST(GCSAM, RawNormMatchesTheWorkedExample) {
  const auto e = worked_example<GCSAM<SGD>>(ascent::Centralize().norm(Norm::Raw));
  expect_values(e[0][0], {0.0014581536067251055, -0.001458153606725105, 0.0034023584156919117, -0.0034023584156919126},
                1e-12, kRawNorm);
}

}  // namespace
}  // namespace steppe
