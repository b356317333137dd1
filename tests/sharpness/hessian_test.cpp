// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/sharpness/hessian.hpp>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/nn/functional/embedding.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/functional/vision.h>
#include <torch/types.h>

#include <cmath>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "../errors.hpp"
#include "small_net.hpp"

namespace steppe::sharpness {
namespace {

TEST(Hessian, ProductsAreThoseOfTheDenseHessian) {
  SmallNet net;
  const at::Tensor dense = dense_hessian(net.model->parameters(), net.loss());
  const LossSurface surface(*net.model, [&] { return net.loss(); });
  const Hessian hessian(surface);
  EXPECT_EQ(hessian.derivative(), Derivative::DoubleBackward);
  EXPECT_EQ(hessian.reason(), "double backward agrees with differences");
  const Hessian differences(surface, Derivative::Differences);
  const at::Tensor v = torch::randn({26}, at::kDouble);
  EXPECT_LT((hessian.times(v) - dense.mv(v)).abs().max().item<double>(), 1e-12);
  EXPECT_LT((differences.times(v) - dense.mv(v)).abs().max().item<double>(), 1e-8);
  EXPECT_TRUE(differences.times(torch::zeros({26}, at::kDouble)).equal(torch::zeros({26}, at::kDouble)));
}

TEST(Hessian, OfASubsetIsItsBlock) {
  SmallNet net;
  const std::vector<at::Tensor> params = net.model->parameters();
  const at::Tensor dense = dense_hessian(params, net.loss());
  LossSurface surface(*net.model, [&] { return net.loss(); });
  surface.only({params[2]});
  const at::Tensor v = torch::randn({8}, at::kDouble);
  EXPECT_LT((Hessian(surface).times(v) - dense.slice(0, 16, 24).slice(1, 16, 24).mv(v)).abs().max().item<double>(),
            1e-12);
}

TEST(Hessian, OverSeveralBatchesIsTheirWeightedMean) {
  SmallNet net;
  const at::Tensor dense = dense_hessian(net.model->parameters(), net.loss());
  // Batches of 1, 3 and 4 samples with 1, 2 and 5 times the loss: 27/8 of it on average.
  const LossSurface surface(*net.model, {1, 3, 4}, [&](size_t i) {
    return net.loss() * (i == 0 ? 1.0 : i == 1 ? 2.0 : 5.0);
  });
  const at::Tensor v = torch::randn({26}, at::kDouble), expected = dense.mv(v) * 27.0 / 8.0;
  for (const Derivative derivative : {Derivative::DoubleBackward, Derivative::Differences})
    EXPECT_LT((Hessian(surface, derivative).times(v) - expected).abs().max().item<double>(), 1e-7);
}

TEST(Hessian, OfALossThatIsLinearInSomeWeightsOrInAllHasZerosThere) {
  const at::Tensor a = torch::ones({2}, at::kDouble).requires_grad_(true),
                   b = torch::ones({3}, at::kDouble).requires_grad_(true);
  const LossSurface surface({a, b}, [&] { return a.square().sum() + b.sum(); });
  EXPECT_TRUE(Hessian(surface)
                  .times(torch::ones({5}, at::kDouble))
                  .equal(torch::tensor({2.0, 2.0, 0.0, 0.0, 0.0}, at::kDouble)));
  const LossSurface linear({b}, [&] { return b.sum(); });
  EXPECT_TRUE(Hessian(linear).times(torch::ones({3}, at::kDouble)).equal(torch::zeros({3}, at::kDouble)));
}

/// x^2 whose backward is right, and whose double backward is wrong or missing.
struct Doubtful : public torch::autograd::Function<Doubtful> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, bool throws) {
    context->save_for_backward({x});
    context->saved_data["throws"] = throws;
    return x.square();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const at::Tensor x = context->get_saved_variables()[0];
    if (at::GradMode::is_enabled() && context->saved_data["throws"].toBool())
      throw std::runtime_error("no second derivative\nof it");
    return {gradients[0] * 2 * x.detach(), at::Tensor()};  // detached: its derivative seems to be 0
  }
};

TEST(Hessian, ADoubleBackwardThatIsWrongOrFailsGivesWayToDifferences) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat})
    for (const bool throws : {false, true}) {
      const at::Tensor w = torch::full({4}, 0.5, type).requires_grad_(true);
      const Hessian hessian(LossSurface({w}, [&] { return Doubtful::apply(w, throws).sum() + w.pow(3).sum(); }));
      EXPECT_EQ(hessian.derivative(), Derivative::Differences);
      EXPECT_EQ(hessian.reason().substr(0, 26), throws ? "double backward fails: no " : "double backward is off by ");
      EXPECT_EQ(hessian.reason().find('\n'), std::string::npos);
      EXPECT_TRUE(at::allclose(hessian.times(torch::ones({4}, type)), torch::full({4}, 5.0, type), 1e-3, 0.0));
      // An explicit choice is respected.
      if (throws) continue;
      const Hessian told(hessian.surface(), Derivative::DoubleBackward);
      EXPECT_TRUE(at::allclose(told.times(torch::ones({4}, type)), torch::full({4}, 3.0, type)));
    }
}

/// x^2 whose backward is right, and whose second derivative is NaN.
struct NotANumber : public torch::autograd::Function<NotANumber> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    return x.square();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const at::Tensor x = context->get_saved_variables()[0];
    return {gradients[0] * 2 * x.detach() + (x - x.detach()).sqrt() * 0};
  }
};

TEST(Hessian, ADoubleBackwardThatGivesNoNumberGivesWayToDifferences) {
  const at::Tensor w = torch::full({4}, 0.5, at::kDouble).requires_grad_(true);
  const Hessian hessian(LossSurface({w}, [&] { return NotANumber::apply(w).sum(); }));
  EXPECT_EQ(hessian.derivative(), Derivative::Differences);
  EXPECT_TRUE(at::allclose(hessian.times(torch::ones({4}, at::kDouble)), torch::full({4}, 2.0, at::kDouble), 1e-6));
}

/// Each operation's product must be that of differences of its gradients with another step, whichever way was chosen.
TEST(Hessian, TheChoiceIsRightForEachOperation) {
  namespace F = torch::nn::functional;
  torch::manual_seed(5);
  const auto d = at::TensorOptions(at::kDouble);
  const at::Tensor x = torch::randn({5, 4}, d), y = torch::randn({3, 4}, d),
                   labels = torch::tensor({0, 1, 2, 3, 0}, at::kLong);
  const at::Tensor image = torch::randn({1, 2, 5, 5}, d), indices = torch::tensor({0, 1, 3, 1}, at::kLong);
  const at::Tensor offsets = torch::tensor({0, 2}, at::kLong);
  const at::Tensor w = torch::randn({4, 4}, d).requires_grad_(true);
  const std::vector<std::pair<std::string, std::function<at::Tensor()>>> operations = {
      {"tanh", [&] { return torch::tanh(x.mm(w)).square().mean(); }},
      {"hardsigmoid", [&] { return torch::hardsigmoid(x.mm(w)).square().mean(); }},
      {"hardswish", [&] { return torch::hardswish(x.mm(w)).square().mean(); }},
      {"cdist", [&] { return torch::cdist(x.mm(w), y).square().mean(); }},
      {"multi_margin_loss", [&] { return F::multi_margin_loss(x.mm(w).square(), labels); }},
      {"multilabel_margin_loss",
       [&] {
         return F::multilabel_margin_loss(x.mm(w).square(), torch::tensor({{3, 0, -1, 1}}, at::kLong).expand({5, 4}));
       }},
      {"grid_sample",
       [&] {
         const at::Tensor grid = torch::tanh(w).view({1, 2, 4, 2}) * 0.9;
         return F::grid_sample(image, grid, F::GridSampleFuncOptions().align_corners(true)).square().mean();
       }},
      {"embedding_bag",
       [&] {
         return F::embedding_bag(indices, w, F::EmbeddingBagFuncOptions().offsets(offsets).mode(torch::kMean))
             .square()
             .mean();
       }},
      {"ctc_loss",
       [&] {
         const at::Tensor log_probs = torch::log_softmax(torch::stack({x.mm(w), x.mm(w.t())}, 1), 2);
         return torch::ctc_loss(log_probs, torch::tensor({{1, 2}, {2, 3}}, at::kLong), torch::tensor({5, 5}, at::kLong),
                                torch::tensor({2, 2}, at::kLong));
       }},
      {"_weight_norm",
       [&] {
         return torch::tanh(x.mm(torch::_weight_norm(w, w.detach().norm(2, {1}, true) + w.slice(1, 0, 1) * 0.1, 0)))
             .square()
             .mean();
       }},
      {"layer_norm", [&] { return torch::layer_norm(x.mm(w), {4}).pow(3).mean(); }},
      {"batch_norm", [&] { return torch::batch_norm(x.mm(w), {}, {}, {}, {}, true, 0.1, 1e-5, false).pow(3).mean(); }},
      {"softmax", [&] { return torch::softmax(x.mm(w), 1).square().mean(); }},
  };
  for (const auto& [name, loss] : operations) {
    const Hessian hessian(LossSurface({w}, loss));
    std::cout << name << ": "
              << (hessian.derivative() == Derivative::Differences ? "differences, " : "double backward, ")
              << hessian.reason() << "\n";
    const at::Tensor v = torch::randn({16}, d);
    const at::Tensor product = hessian.times(v);
    const double h = 1e-5;
    std::vector<at::Tensor> gradients;
    for (const double sign : {1.0, -1.0}) {
      Displaced weights({w});
      weights.move_to(sign * h, {v.view({4, 4})});
      gradients.push_back(torch::autograd::grad({loss()}, {w})[0].reshape({-1}));
    }
    const at::Tensor expected = (gradients[0] - gradients[1]) / (2 * h);
    EXPECT_LT((product - expected).norm().item<double>(), 1e-5 * (1.0 + expected.norm().item<double>())) << name;
  }
}

/// A table read between its entries, as images are sampled: its derivative jumps at each entry.
struct Sampled {
  explicit Sampled(at::ScalarType type) {
    torch::manual_seed(6);
    x = torch::randn({200, 3}, at::kDouble).to(type);
    table = torch::randn({64}, at::kDouble).to(type);
    w = torch::tensor({0.9, -0.4, 0.3}, type).requires_grad_(true);
  }
  at::Tensor loss() const {
    const at::Tensor place = torch::sigmoid(x.mv(w)) * 62;
    const at::Tensor entry = place.detach().floor(), share = place - entry, index = entry.to(at::kLong);
    return (table.index({index}) * (1 - share) + table.index({index + 1}) * share).square().mean();
  }
  at::Tensor x, table, w;
};

TEST(Hessian, KinksDoNotPassForCurvatureAndHowFarDifferencesCanBeTrustedIsTold) {
  const Sampled exact(at::kDouble), sampled(at::kFloat);
  const double expected = dense_hessian({exact.w}, exact.loss()).trace().item<double>();
  const LossSurface surface({sampled.w}, [&] { return sampled.loss(); });
  const Hessian hessian(surface), differences(surface, Derivative::Differences);
  const auto trace_of = [](const Hessian& by) {
    double sum = 0.0;
    for (int64_t i = 0; i < 3; ++i) sum += by.times(torch::eye(3)[i])[i].item<double>();
    return sum;
  };
  EXPECT_NEAR(trace_of(hessian), expected, 1e-3 * std::abs(expected));
  EXPECT_EQ(hessian.derivative(), Derivative::DoubleBackward);
  EXPECT_NE(hessian.reason().find("cannot judge"), std::string::npos) << hessian.reason();
  EXPECT_GT(std::abs(trace_of(differences) - expected), 0.2 * std::abs(expected));
  EXPECT_GT(differences.spread(), 0.05);
  EXPECT_NE(differences.reason().find("not to be trusted"), std::string::npos) << differences.reason();

  SmallNet net(at::kFloat);
  const Hessian smooth(LossSurface(*net.model, [&] { return net.loss(); }), Derivative::Differences);
  EXPECT_LT(smooth.spread(), 0.05);
  EXPECT_EQ(smooth.reason().find("not to be trusted"), std::string::npos) << smooth.reason();
}

TEST(Hessian, TheTraceIsExactForADiagonalAndWithinItsErrorsOtherwise) {
  const Quadratic quadratic({4.0, 2.0, 1.0, -0.5, 0.0});
  const Estimate exact =
      trace(Hessian(LossSurface({quadratic.w}, [&] { return quadratic.loss(); })), TraceOptions().vectors(3));
  EXPECT_NEAR(exact.mean, 6.5, 1e-12);
  EXPECT_NEAR(exact.standard_error, 0.0, 1e-12);
  EXPECT_EQ(exact.draws, 3);

  SmallNet net;
  const at::Tensor dense = dense_hessian(net.model->parameters(), net.loss());
  const Hessian hessian(LossSurface(*net.model, [&] { return net.loss(); }));
  const Estimate estimate = trace(hessian);
  EXPECT_EQ(estimate.draws, 100);
  EXPECT_NEAR(estimate.mean, dense.trace().item<double>(), 4.0 * estimate.standard_error);
  // With the same vectors, the estimate itself to 1e-8; its error by the known variance of Hutchinson's.
  RandomVectors random(0);
  double sum = 0.0;
  for (int i = 0; i < 100; ++i) {
    const at::Tensor v = random.rademacher(26, at::TensorOptions(at::kDouble));
    EXPECT_TRUE(v.abs().equal(torch::ones({26}, at::kDouble)));
    sum += v.dot(dense.mv(v)).item<double>();
  }
  EXPECT_NEAR(estimate.mean, sum / 100, 1e-8);
  const double variance = 2.0 * (dense.square().sum() - dense.diagonal().square().sum()).item<double>();
  EXPECT_NEAR(estimate.standard_error / std::sqrt(variance / 100), 1.0, 0.3);
}

/// |x|^2 / 2 whose gradient is x itself, so that a product with its Hessian is the given vector itself.
struct HalfSquare : public torch::autograd::Function<HalfSquare> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    return x.square().sum() / 2;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list /*gradients*/) {
    return {context->get_saved_variables()[0].view({2, 2})};
  }
};

TEST(Hessian, PartsOfAProductShareNoMemoryWithTheVector) {
  const at::Tensor w = torch::ones({2, 2}, at::kDouble).requires_grad_(true);
  const at::Tensor linear = torch::ones({3}, at::kDouble).requires_grad_(true);
  const LossSurface surface({w, linear}, [&] { return HalfSquare::apply(w) + linear.sum(); });
  const at::Tensor v = torch::arange(7, at::kDouble);
  const std::vector<at::Tensor> parts = Hessian(surface, Derivative::DoubleBackward).times_in_parts(v);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_TRUE(parts[0].equal(torch::arange(4, at::kDouble)));
  EXPECT_TRUE(parts[1].equal(torch::zeros({3}, at::kDouble)));
  for (const at::Tensor& part : parts) part.fill_(9.0);
  EXPECT_TRUE(v.equal(torch::arange(7, at::kDouble)));
}

TEST(Hessian, SeedsDecideTheVectors) {
  SmallNet net;
  const Hessian hessian(LossSurface(*net.model, [&] { return net.loss(); }));
  const auto mean = [&](uint64_t seed) { return trace(hessian, TraceOptions().vectors(5).seed(seed)).mean; };
  EXPECT_EQ(mean(1), mean(1));
  EXPECT_NE(mean(1), mean(2));
}

TEST(Hessian, ErrorsNameWhatIsWrong) {
  const at::Tensor half = torch::ones({2}, at::kHalf).requires_grad_(true);
  const LossSurface surface({half}, [&] { return half.to(at::kFloat).square().sum(); });
  EXPECT_NE(
      message_of([&] { Hessian(surface, Derivative::Differences).times(torch::ones({2})); }).find("float32 or float64"),
      std::string::npos);
  EXPECT_TRUE(Hessian(surface).times(torch::ones({2})).equal(torch::full({2}, 2.0)));
  EXPECT_NE(message_of([&] { trace(Hessian(surface), TraceOptions().vectors(0)); }).find("got 0"), std::string::npos);
  const std::string failed = message_of(
      [&] { Hessian(LossSurface({half}, [&] { return Doubtful::apply(half.to(at::kFloat), true).sum(); })); });
  EXPECT_NE(failed.find("double backward fails (no second derivative)"), std::string::npos) << failed;
  const at::Tensor w = torch::zeros({2}).requires_grad_(true);
  const LossSurface broken({w}, [&] { return w.sqrt().sum(); });
  const LossSurface no_number({w}, [&] { return w.sum() / 0.0 * 0.0; });
  EXPECT_NE(message_of([&] { Hessian hessian(no_number); }).find("the loss is not finite"), std::string::npos);
  EXPECT_NE(message_of([&] { Hessian(broken, Derivative::DoubleBackward).times(torch::ones({2})); }).find("not finite"),
            std::string::npos);
}

TEST(Hessian, ProductsAndTracesOnAGpuAreThoseOfTheCpu_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  SmallNet here, there;
  there.to(at::kCUDA);
  const std::vector<at::Tensor> before = there.weights();
  const at::Tensor v = torch::randn({26}, at::kDouble);
  for (const Derivative derivative : {Derivative::Auto, Derivative::Differences}) {
    const Hessian expected(LossSurface(*here.model, [&] { return here.loss(); }), derivative);
    const Hessian hessian(LossSurface(*there.model, [&] { return there.loss(); }), derivative);
    EXPECT_EQ(hessian.reason(), expected.reason());
    EXPECT_LT((hessian.times(v.to(at::kCUDA)).cpu() - expected.times(v)).abs().max().item<double>(), 1e-8);
    const TraceOptions few = TraceOptions().vectors(5);
    EXPECT_NEAR(trace(hessian, few).mean, trace(expected, few).mean, 1e-8);
  }
  there.expect_untouched(before);
}

}  // namespace
}  // namespace steppe::sharpness
