// Twenty steps of every method and convention against trajectories that a script computed from the formulas alone.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <cstdint>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace steppe {
namespace {

using torch::optim::OptimizerParamGroup;

constexpr double kTolerance = 1e-10;
const std::vector<std::string> kParameters = {"K", "kb", "gain", "W1", "b1", "W2", "b2"};

struct Step {
  int64_t number = 0;
  double loss = 0.0;       ///< before the step
  at::Tensor parameters;   ///< all of them after it, flattened one after the other
};

struct Trajectory {
  std::string method, base;
  std::vector<Step> steps;
};

void PrintTo(const Trajectory& run, std::ostream* out) { *out << run.method << " over " << run.base; }

struct Baselines {
  std::map<std::string, at::Tensor> tensors;
  std::vector<Trajectory> runs;
};

at::Tensor read_values(std::istream& in, const std::vector<int64_t>& sizes) {
  at::Tensor tensor = torch::empty(sizes, at::kDouble);
  for (int64_t i = 0; i < tensor.numel(); ++i) in >> tensor.data_ptr<double>()[i];
  return tensor;
}

void read_tensor(std::istream& in, Baselines& baselines) {
  std::string name;
  int64_t dimensions = 0;
  in >> name >> dimensions;
  std::vector<int64_t> sizes(static_cast<size_t>(dimensions));
  for (int64_t& size : sizes) in >> size;
  baselines.tensors[name] = read_values(in, sizes);
}

int64_t parameter_count(const Baselines& baselines) {
  int64_t count = 0;
  for (const std::string& name : kParameters) count += baselines.tensors.at(name).numel();
  return count;
}

/// The format is described in the README beside the file.
Baselines read_baselines() {
  const std::string path = STEPPE_SOURCE_DIR "/tests/baselines/trajectories.txt";
  std::ifstream in(path);
  std::string word;
  if (!(in >> word) || word != "steppe-baselines" || !(in >> word) || word != "1")
    throw std::runtime_error(path + " is no file of trajectories");
  Baselines baselines;
  while (in >> word) {
    if (word == "tensor") {
      read_tensor(in, baselines);
    } else if (word == "run") {
      Trajectory& run = baselines.runs.emplace_back();
      in >> run.method >> run.base;
    } else if (word == "step") {
      Step& step = baselines.runs.back().steps.emplace_back();
      in >> step.number >> word >> step.loss;
      step.parameters = read_values(in, {parameter_count(baselines)});
    } else {
      throw std::runtime_error(path + ": '" + word + "' is not expected there");
    }
  }
  return baselines;
}

const Baselines& baselines() {
  static const Baselines read = read_baselines();
  return read;
}

/// The problem of the script: a convolution, a gain, two linear layers.
class Problem {
 public:
  Problem() {
    for (const std::string& name : kParameters)
      parameters_.push_back(baselines().tensors.at(name).clone().requires_grad_());
  }

  at::Tensor loss() const {
    const at::Tensor features = at::conv2d(baselines().tensors.at("inputs"), parameters_[0], parameters_[1]).tanh();
    const at::Tensor hidden = at::linear(features.flatten(1) * parameters_[2], parameters_[3], parameters_[4]).tanh();
    return at::mse_loss(at::linear(hidden, parameters_[5], parameters_[6]), baselines().tensors.at("targets"));
  }

  at::Tensor evaluate() const {
    at::Tensor value = loss();
    value.backward();
    return value;
  }

  at::Tensor values() const {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& parameter : parameters_) flat.push_back(parameter.detach().flatten());
    return at::cat(flat);
  }

  const std::vector<at::Tensor>& parameters() const { return parameters_; }
  std::vector<at::Tensor> first_half() const { return {parameters_.begin(), parameters_.begin() + 3}; }
  std::vector<at::Tensor> second_half() const { return {parameters_.begin() + 3, parameters_.end()}; }

 private:
  std::vector<at::Tensor> parameters_;
};

/// The gains alone, as AdaptiveScale finds them in an attached model.
class GainLayerNormImpl : public torch::nn::Module {
 public:
  explicit GainLayerNormImpl(const at::Tensor& gain) { register_parameter("gain", gain); }
};

using Stepper = std::function<void(const Problem&)>;

template <class Optimizer>
Stepper stepper(std::shared_ptr<Optimizer> optimizer) {
  return [optimizer](const Problem& problem) { optimizer->step([&] { return problem.evaluate(); }); };
}

/// Every method of the script over one base, by the script's name.
template <class Base, class BaseOptions>
class Methods {
 public:
  explicit Methods(BaseOptions base_options) : base_options_(std::move(base_options)) {
    add_plain();
    add_adaptive();
    add_filters();
    add_centralized();
    add_groups_and_schedules();
  }

  Stepper make(const std::string& name, const Problem& problem) const { return make_.at(name)(problem); }
  std::set<std::string> names() const {
    std::set<std::string> names;
    for (const auto& item : make_) names.insert(item.first);
    return names;
  }

 private:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();

  template <class Ascent, class Descent = descent::PerturbedGradient>
  void add(const std::string& name, const Options& options, Ascent ascent, Descent descent = {}) {
    make_[name] = [=, base = base_options_](const Problem& problem) {
      return stepper(std::make_shared<SharpnessAware<Base, Ascent, Descent>>(problem.parameters(), base, options,
                                                                             ascent, descent));
    };
  }

  static Options rho(double value) { return Options().rho(value); }
  static ascent::ZScoreFilter filter(double percentile) { return ascent::ZScoreFilter().percentile(percentile); }

  void add_plain() {
    add("sam", rho(0.2), ascent::Gradient());
    add("sam_p_inf", rho(0.1).p(kInfinity), ascent::Gradient());
    add("sam_p3", rho(0.2).p(3), ascent::Gradient());
  }

  void add_adaptive() {
    add("asam_paper", rho(0.5), ascent::AdaptiveScale::paper());
    add("asam_davda54", rho(2.0), ascent::AdaptiveScale::davda54());
    add("asam_p_inf", rho(0.2).p(kInfinity), ascent::AdaptiveScale());
    make_["asam_paper_gain"] = [base = base_options_](const Problem& problem) {
      auto optimizer = std::make_shared<ASAM<Base>>(problem.parameters(), base, rho(0.5));
      optimizer->attach(GainLayerNormImpl(problem.parameters()[2]));
      return stepper(optimizer);
    };
  }

  void add_filters() {
    add("zsharp_75", rho(0.2), filter(0.75));
    add("zsharp_95", rho(0.2), filter(0.95));
    add("zsharp_min_dim_1", rho(0.2), filter(0.75).min_dim(1));
    add("zsharp_released_code", rho(0.2), ascent::ZScoreFilter::released_code().percentile(0.75));
    add("zsharp_global_75", rho(0.2), filter(0.75).threshold(Threshold::Global));
    add("zsharp_global_95", rho(0.2), filter(0.95).threshold(Threshold::Global));
    add("zsharp_percentile_schedule", rho(0.2), filter(0.9).percentile_schedule(schedule::linear(0.5, 0.95, 10)));
    add("zsharp_energy_90", rho(0.2), filter(0.75).energy(0.9));
    add("zsharp_robust_75", rho(0.2), filter(0.75).z_score(ZScore::Robust));
    add("zsharp_robust_global_75", rho(0.2), filter(0.75).z_score(ZScore::Robust).threshold(Threshold::Global));
  }

  void add_centralized() {
    add("gcsam", rho(0.2), ascent::Centralize(), descent::Centralize());
    add("gcsam_norm_raw", rho(0.2), ascent::Centralize().norm(Norm::Raw), descent::Centralize());
    add("gcsam_center_descent", rho(0.2), ascent::Centralize(), descent::Centralize().center_descent(true));
    add("gcsam_conv_only", rho(0.2), ascent::Centralize().conv_only(true), descent::Centralize());
    add("centralize_filter", rho(0.2), ascent::Chain(ascent::Centralize(), filter(0.75)));
    add("centralize_filter_adaptive_paper", rho(0.5),
        ascent::Chain(ascent::Centralize(), filter(0.75), ascent::AdaptiveScale()));
    add("centralize_adaptive_davda54", rho(2.0),
        ascent::Chain(ascent::Centralize(), ascent::AdaptiveScale::davda54()));
  }

  /// Two groups, the first with a radius of its own.
  void add_grouped(const std::string& name, double first_rho, bool first_in_norm) {
    make_[name] = [=, base = base_options_](const Problem& problem) {
      const std::vector<OptimizerParamGroup> groups = {OptimizerParamGroup(problem.first_half()),
                                                       OptimizerParamGroup(problem.second_half())};
      auto optimizer = std::make_shared<SAM<Base>>(groups, base, rho(0.3));
      optimizer->options(0).rho(first_rho).in_norm(first_in_norm);
      return stepper(optimizer);
    };
  }

  void add_groups_and_schedules() {
    add_grouped("sam_groups", 0.1, true);
    add_grouped("sam_group_zero_in_norm", 0.0, true);
    add_grouped("sam_group_zero_outside_norm", 0.0, false);
    add("sam_rho_cosine", rho(0.2).rho_schedule(schedule::cosine(0.05, 0.3, 20)), ascent::Gradient());
    add("sam_rho_linear", rho(0.2).rho_schedule(schedule::linear(0.05, 0.3, 20)), ascent::Gradient());
    make_["sam_every_3"] = [base = base_options_](const Problem& problem) {
      auto optimizer = std::make_shared<SAM<Base>>(problem.parameters(), base, rho(0.2));
      optimizer->every(3);
      return stepper(optimizer);
    };
  }

  BaseOptions base_options_;
  std::map<std::string, std::function<Stepper(const Problem&)>> make_;
};

Methods<torch::optim::SGD, torch::optim::SGDOptions> over_sgd() {
  return Methods<torch::optim::SGD, torch::optim::SGDOptions>(
      torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(1e-3));
}
Methods<torch::optim::Adam, torch::optim::AdamOptions> over_adam() {
  return Methods<torch::optim::Adam, torch::optim::AdamOptions>(torch::optim::AdamOptions(0.01).weight_decay(1e-3));
}
Methods<torch::optim::AdamW, torch::optim::AdamWOptions> over_adamw() {
  return Methods<torch::optim::AdamW, torch::optim::AdamWOptions>(torch::optim::AdamWOptions(0.01).weight_decay(0.1));
}

Stepper make_stepper(const Trajectory& run, const Problem& problem) {
  if (run.base == "sgd") return over_sgd().make(run.method, problem);
  if (run.base == "adam") return over_adam().make(run.method, problem);
  if (run.base == "adamw") return over_adamw().make(run.method, problem);
  throw std::runtime_error("the trajectories name a base optimizer '" + run.base + "' that the test does not know");
}

class Baseline : public testing::TestWithParam<Trajectory> {};

TEST_P(Baseline, IsFollowedForTwentySteps) {
  const Problem problem;
  const Stepper step = make_stepper(GetParam(), problem);
  int64_t taken = 0;
  for (const Step& expected : GetParam().steps) {
    for (; taken + 1 < expected.number; ++taken) step(problem);
    EXPECT_NEAR(problem.loss().item<double>(), expected.loss, kTolerance) << "before step " << expected.number;
    step(problem);
    ++taken;
    const double worst = (problem.values() - expected.parameters).abs().max().item<double>();
    EXPECT_LE(worst, kTolerance) << "after step " << expected.number;
  }
  EXPECT_EQ(taken, 20);
}

TEST(Baselines, HoldEveryMethodOverEveryBase) {
  std::map<std::string, std::set<std::string>> found;
  for (const Trajectory& run : baselines().runs) found[run.base].insert(run.method);
  EXPECT_EQ(found, (std::map<std::string, std::set<std::string>>{
                       {"sgd", over_sgd().names()}, {"adam", over_adam().names()}, {"adamw", over_adamw().names()}}));
}

INSTANTIATE_TEST_SUITE_P(Every, Baseline, testing::ValuesIn(baselines().runs),
                         [](const testing::TestParamInfo<Trajectory>& each) {
                           return each.param.method + "_over_" + each.param.base;
                         });

}  // namespace
}  // namespace steppe
