// SPDX-License-Identifier: MIT
#include "models.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <steppe/base/fused.hpp>
#include <steppe/optimizers.hpp>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "../../errors.hpp"
#include "optimizers.hpp"

namespace cifar {
namespace {

TEST(CifarModels, HaveThePublishedNumbersOfParameters) {
  EXPECT_EQ(parameters_of(*make_model("resnet20", 10, 0)), 269722);
  EXPECT_EQ(parameters_of(*make_model("resnet20", 100, 0)), 269722 + 90 * 65);
  EXPECT_EQ(parameters_of(*make_model("resnet18", 10, 0)), 11173962);
}

TEST(CifarModels, MapImagesToOneNumberPerClass) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : model_names()) {
    ResNet model = make_model(name, 100, 0);
    const at::Tensor out = model(at::randn({2, 3, 32, 32}));
    EXPECT_EQ(out.sizes(), (std::vector<int64_t>{2, 100})) << name;
    EXPECT_TRUE(out.isfinite().all().item<bool>()) << name;
  }
}

TEST(CifarModels, AreSmallerByTheirCompressionWhenTensorized) {
  const at::NoGradGuard no_grad;
  for (const std::string format : {"cp", "tucker", "tt", "tr"}) {
    ResNet model = make_model("resnet20", 10, 0, format, 4.0);
    int64_t cores = 0;
    for (const std::vector<at::Tensor>& layer : cores_of(*model))
      for (const at::Tensor& core : layer) cores += core.numel();
    EXPECT_EQ(cores_of(*model).size(), 18U) << format;
    const int64_t others = parameters_of(*model) - cores, full = 269722 - others;
    EXPECT_LE(cores * 4, full) << format;
    EXPECT_GT(cores * 6, full) << format << ": much smaller than asked for";
    EXPECT_EQ(model(at::randn({2, 3, 32, 32})).sizes(), (std::vector<int64_t>{2, 10})) << format;
  }
  EXPECT_TRUE(cores_of(*make_model("resnet20", 10, 0)).empty());
  EXPECT_EQ(message_of([] { make_model("small", 10, 0, "mps"); }),
            "there is no format 'mps'; choose none, cp, tucker, tt or tr");
}

TEST(CifarOptimizers, DasGroupsTheCoresOfEachLayerAndLeavesTheRestUnscaled) {
  ResNet model = make_model("small", 10, 0, "tr", 3.0);
  const auto layers = cores_of(*model);
  const AnyOptimizer any = make_optimizer({"sgd", "das"}, *model, OptimizerSettings());
  auto& das = dynamic_cast<steppe::DAS<steppe::Fused<torch::optim::SGD>>&>(*any.optimizer);
  ASSERT_EQ(das.param_groups().size(), layers.size() + 1);
  size_t parameters = 0;
  for (size_t i = 0; i < das.param_groups().size(); ++i) {
    parameters += das.param_groups()[i].params().size();
    EXPECT_EQ(das.scaling(i).alpha(), i < layers.size() ? 0.01 : 0.0);
  }
  EXPECT_EQ(parameters, model->parameters().size());
  EXPECT_EQ(message_of([] {
              make_optimizer({"sgd", "das"}, *make_model("small", 10, 0), OptimizerSettings());
            }),
            "das scales the cores of tensorized layers; give --tensorize a format");
  EXPECT_EQ(message_of([&] {
              make_optimizer({"lbfgs", "das"}, *model, OptimizerSettings());
            }),
            "das needs a base that evaluates its closure once a step, which lbfgs does not");
}

TEST(CifarModels, StartFromTheWeightsThatTheSeedDraws) {
  const auto first = make_model("small", 10, 1)->parameters(), again = make_model("small", 10, 1)->parameters(),
             other = make_model("small", 10, 2)->parameters();
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], again[i]));
  EXPECT_FALSE(at::equal(first[0], other[0]));
}

TEST(CifarModels, AnUnknownNameIsAnErrorThatListsThem) {
  EXPECT_EQ(message_of([] { make_model("vgg", 10, 0); }),
            "there is no model 'vgg'; choose small, resnet20 or resnet18");
}

TEST(CifarOptimizerName, IsABaseOrAMethodOrBoth) {
  const auto parsed = [](const std::string& text) {
    const OptimizerName name = OptimizerName::parse(text);
    return name.base + "/" + name.method;
  };
  EXPECT_EQ(parsed("adam"), "adam/");
  EXPECT_EQ(parsed("gcsam"), "sgd/gcsam");
  EXPECT_EQ(parsed("adam+zsharp"), "adam/zsharp");
  EXPECT_EQ(parsed("sgd+sam"), "sgd/sam");
}

TEST(CifarOptimizerName, AnythingElseIsAnErrorThatListsTheNames) {
  for (const char* text : {"", "foo", "SGD", "sam+adam", "adam+", "+sam", "adam+sam+sam", "adam+adam"}) {
    const std::string error = message_of([&] { OptimizerName::parse(text); });
    EXPECT_EQ(error.rfind("there is no optimizer '" + std::string(text) + "'", 0), 0U) << error;
    EXPECT_NE(error.find("lbfgs"), std::string::npos);
    EXPECT_NE(error.find("gczsharp"), std::string::npos);
  }
}

TEST(CifarOptimizerName, AMethodThatItsBaseDoesNotHaveIsAnErrorThatSaysWhy) {
  const auto error = [](const std::string& text) { return message_of([&] { OptimizerName::parse(text); }); };
  EXPECT_EQ(error("rmsprop+friendly"), "'rmsprop+friendly' is not built in: friendly goes with sgd, adam, adamw");
  EXPECT_EQ(error("lbfgs+gsam"), "'lbfgs+gsam' is not built in: gsam goes with sgd, adam, adamw");
  for (const std::string method :
       {"das", "msam", "looksam", "s2sam", "aesam", "aelooksam", "friendly", "vasso", "ssam", "wsam", "xsam"})
    EXPECT_EQ(error("lbfgs+" + method),
              method + " needs a base that evaluates its closure once a step, which lbfgs does not");
  for (const char* text : {"lbfgs+tail", "lbfgs+every", "rmsprop+looksam", "adagrad+msam", "adamw+xsam"})
    EXPECT_EQ(error(text), "") << text;
  EXPECT_NE(error("adam+nosam").find("aelooksam, friendly"), std::string::npos) << "the list has the new names";
}

TEST(CifarOptimizerName, PlansTheGradientsOfAStep) {
  const auto gradients = [](const std::string& text, int64_t interval = 0, double tail_share = 0.3) {
    return OptimizerName::parse(text).gradients(interval, tail_share);
  };
  for (const char* name : {"sgd", "adam", "das", "msam", "adamw+s2sam"}) EXPECT_DOUBLE_EQ(gradients(name), 1.0) << name;
  for (const char* name :
       {"sam", "asam", "zsharp", "gcsam", "gczsharp", "friendly", "vasso", "ssam", "gsam", "wsam", "stablesam", "xsam"})
    EXPECT_DOUBLE_EQ(gradients(name), 2.0) << name;
  EXPECT_DOUBLE_EQ(gradients("sam", 4), 2.0);
  EXPECT_DOUBLE_EQ(gradients("looksam"), 1.2);
  EXPECT_DOUBLE_EQ(gradients("every"), 1.1);
  EXPECT_DOUBLE_EQ(gradients("adam+looksam", 4), 1.25);
  EXPECT_DOUBLE_EQ(gradients("every", 2), 1.5);
  EXPECT_DOUBLE_EQ(gradients("tail"), 1.3);
  EXPECT_DOUBLE_EQ(gradients("tail", 0, 0.75), 1.75);
  EXPECT_DOUBLE_EQ(gradients("aesam"), 1.5);
  EXPECT_DOUBLE_EQ(gradients("aelooksam"), 1.5);
}

TEST(CifarOptimizers, EveryMethodTakesTwoStepsOverEachOfItsBases) {
  const at::Tensor images = at::randn({4, 3, 32, 32}), labels = at::tensor({0, 3, 5, 9}, at::kLong);
  std::vector<std::string> methods = method_names();
  methods.insert(methods.begin(), "");
  for (const std::string& base : base_names())
    for (const std::string& method : methods) {
      SCOPED_TRACE(base + "+" + method);
      const std::vector<std::string>& bases = method.empty() ? base_names() : bases_of(method);
      if (std::find(bases.begin(), bases.end(), base) == bases.end()) continue;
      ResNet model = method == "das" ? make_model("small", 10, 0, "tt", 3.0) : make_model("small", 10, 0);
      OptimizerSettings settings;
      settings.learning_rate = 0.01;
      settings.steps = settings.epoch_steps = 2;
      AnyOptimizer any = make_optimizer({base, method}, *model, settings);
      const at::Tensor before = model->parameters().front().detach().clone();
      for (int step = 0; step < 2; ++step)
        any.optimizer->step([&] {
          any.optimizer->zero_grad();
          at::Tensor loss = at::cross_entropy_loss(model(images), labels);
          loss.backward();
          return loss;
        });
      const at::Tensor after = model->parameters().front().detach();
      EXPECT_FALSE(at::equal(before, after));
      EXPECT_TRUE(after.isfinite().all().item<bool>());
      EXPECT_EQ(static_cast<bool>(any.sharpness), !method.empty() && method != "das");
      EXPECT_EQ(static_cast<bool>(any.perturbed), !method.empty() && method != "das");
      EXPECT_EQ(static_cast<bool>(any.step_with_loss), method == "xsam");
      if (!any.sharpness) continue;
      // Every other step is plain, and a step of a single pass does not compute the loss at the weights themselves.
      const bool both_losses = method != "msam" && method != "s2sam" && any.perturbed();
      EXPECT_EQ(any.sharpness().defined(), both_losses);
      if (both_losses) {
        EXPECT_TRUE(any.sharpness().isfinite().item<bool>());
      }
    }
}

TEST(CifarOptimizers, TheHyperParametersReachTheMethod) {
  const auto sharpness = [](const std::string& method, double rho, double percentile) {
    at::manual_seed(0);
    const at::Tensor images = at::randn({8, 3, 32, 32}), labels = at::arange(0, 8, at::kLong);
    ResNet model = make_model("small", 10, 0);
    AnyOptimizer any = make_optimizer({"sgd", method}, *model, {0.0, 0.0, 0.0, rho, percentile});
    any.optimizer->step([&] {
      any.optimizer->zero_grad();
      at::Tensor loss = at::cross_entropy_loss(model(images), labels);
      loss.backward();
      return loss;
    });
    return any.sharpness().item<double>();
  };
  EXPECT_GT(sharpness("sam", 0.05, 0.95), sharpness("sam", 0.01, 0.95));
  EXPECT_NE(sharpness("zsharp", 0.05, 0.95), sharpness("zsharp", 0.05, 0.5));
  EXPECT_NE(sharpness("gczsharp", 0.05, 0.95), sharpness("gczsharp", 0.05, 0.5));
  EXPECT_NE(sharpness("gcsam", 0.05, 0.95), sharpness("sam", 0.05, 0.95));
}

/// Which of `steps` steps are perturbed: "+" and "-".
std::string pattern(const std::string& method, const OptimizerSettings& settings, int steps) {
  at::manual_seed(0);
  const at::Tensor images = at::randn({4, 3, 32, 32}), labels = at::arange(0, 4, at::kLong);
  ResNet model = make_model("small", 10, 0);
  AnyOptimizer any = make_optimizer({"sgd", method}, *model, settings);
  std::string seen;
  for (int step = 0; step < steps; ++step) {
    any.optimizer->step([&] {
      any.optimizer->zero_grad();
      at::Tensor loss = at::cross_entropy_loss(model(images), labels);
      loss.backward();
      return loss;
    });
    seen += any.perturbed() ? "+" : "-";
  }
  return seen;
}

TEST(CifarOptimizers, TheIntervalAndTheShareReachTheMethod) {
  OptimizerSettings settings;
  settings.learning_rate = 0.01;
  EXPECT_EQ(pattern("looksam", settings, 6), "+----+");
  EXPECT_EQ(pattern("every", settings, 11), "+---------+");
  settings.interval = 2;
  EXPECT_EQ(pattern("looksam", settings, 4), "+-+-");
  EXPECT_EQ(pattern("every", settings, 4), "+-+-");
  EXPECT_EQ(pattern("sam", settings, 4), "++++");
  settings.steps = 10;
  EXPECT_EQ(pattern("tail", settings, 10), "-------+++");
  settings.tail_share = 0.5;
  EXPECT_EQ(pattern("tail", settings, 10), "-----+++++");
  EXPECT_EQ(pattern("msam", settings, 3), "-++");  // the first step has no momentum to move along
  EXPECT_EQ(pattern("s2sam", settings, 3), "-++");
}

TEST(CifarOptimizers, TheLossUphillIsTakenAtRhoAndTheWeightsComeBack) {
  at::Tensor w = at::tensor({3.0, 4.0}, at::kDouble).set_requires_grad(true);
  (w * w).sum().backward();  // g = 2 w, |w| = 5
  const double loss = loss_uphill({w}, 0.5, [&] { return (w * w).sum().item<double>(); });
  EXPECT_NEAR(loss, 5.5 * 5.5, 1e-12);
  EXPECT_TRUE(at::equal(w.detach(), at::tensor({3.0, 4.0}, at::kDouble)));
}

}  // namespace
}  // namespace cifar
