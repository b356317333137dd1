// Twenty steps of every method and convention against trajectories that a script computed from the formulas alone.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <cmath>
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

  /// Over the first samples only, if fewer are requested.
  at::Tensor loss(int64_t samples = 6) const {
    const at::Tensor inputs = baselines().tensors.at("inputs").slice(0, 0, samples);
    const at::Tensor features = at::conv2d(inputs, parameters_[0], parameters_[1]).tanh();
    const at::Tensor hidden = at::linear(features.flatten(1) * parameters_[2], parameters_[3], parameters_[4]).tanh();
    const at::Tensor last = tied_ ? parameters_[5].detach() : parameters_[5];
    const at::Tensor error =
        at::mse_loss(at::linear(hidden, last, parameters_[6]), baselines().tensors.at("targets").slice(0, 0, samples));
    return tied_ ? error + 0.05 * parameters_[5].sum() : error;
  }

  at::Tensor evaluate(int64_t samples = 6) const {
    at::Tensor value = loss(samples);
    value.backward();
    return value;
  }

  /// The gradient of W2 is the same everywhere: no component of it lies in a tail.
  void tie() { tied_ = true; }

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
  bool tied_ = false;
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

/// The same under a learning rate that is the base's times a function of the step.
template <class Optimizer>
Stepper stepper(std::shared_ptr<Optimizer> optimizer, const std::function<double(double)>& factor) {
  const double lr = optimizer->param_groups()[0].options().get_lr();
  return [=](const Problem& problem) {
    optimizer->param_groups()[0].options().set_lr(lr * factor(static_cast<double>(optimizer->steps())));
    optimizer->step([&] { return problem.evaluate(); });
  };
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
    add_near_the_bases_cost();
    add_directions_and_radii();
    add_final_gradients();
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

  /// `set` is called with the optimizer when it is made.
  template <template <class> class Alias, class Set>
  void add_set(const std::string& name, const Options& options, Set set) {
    make_[name] = [=, base = base_options_](const Problem& problem) {
      auto optimizer = std::make_shared<Alias<Base>>(problem.parameters(), base, options);
      set(*optimizer);
      return stepper(optimizer);
    };
  }
  template <template <class> class Alias>
  void add_set(const std::string& name, const Options& options) {
    add_set<Alias>(name, options, [](auto&) {});
  }

  void add_tail(const std::string& name, const std::function<double(double)>& factor) {
    make_[name] = [=, base = base_options_](const Problem& problem) {
      auto optimizer = std::make_shared<Tail<Base>>(problem.parameters(), base, rho(0.2));
      optimizer->policy().total(20).share(0.3);
      return stepper(optimizer, factor);
    };
  }

  void add_near_the_bases_cost() {
    add_set<Tail>("tail_03", rho(0.2), [](auto& tail) { tail.policy().total(20).share(0.3); });
    add_set<Tail>("tail_03_ramp_2", rho(0.2), [](auto& tail) { tail.policy().total(20).share(0.3).ramp(2); });
    add_tail("tail_03_wsd_warmup_3", [](double t) { return t < 3 ? (t + 1) / 3 : t < 14 ? 1.0 : 1 - (t - 14) / 6; });
    add_tail("tail_03_cosine_tail_least_01", [](double t) {
      return t < 14 ? 1.0 : 0.1 + 0.9 * (1 + std::cos(3.14159265358979323846 * (t - 14) / 6)) / 2;
    });
    add_set<MSAM>("msam_rho_03", rho(0.3));
    add_set<LookSAM>("looksam_k5_alpha_03", rho(0.2));
    add_set<LookSAM>("looksam_k5_alpha_03_per_tensor", rho(0.2), [](auto& sam) { sam.descent().per_tensor(true); });
    add_set<LookSAM>("looksam_k5_measured", rho(0.2), [](auto& sam) { sam.descent().measured(true); });
    add_set<AESAM>("aesam_c_1_to_minus_1", rho(0.2), [](auto& sam) { sam.policy().total(20); });
    add_set<AESAM>("aesam_c_minus_1_to_1_total_12", rho(0.2),
                   [](auto& sam) { sam.policy().total(12).c_first(-1).c_last(1); });
    add_set<AESAM>("aesam_c_1_to_minus_1_var_first_s", rho(0.2),
                   [](auto& sam) { sam.policy().total(20).start_at_first(true); });
    add_set<AELookSAM>("aelooksam_alpha_03", rho(0.2), [](auto& sam) { sam.policy().total(20); });
    add_set<S2SAM>("s2sam", rho(0.2));
  }

  void add_directions_and_radii() {
    add_set<FriendlySAM>("friendly_sigma_1_lam_09", rho(0.2));
    add("friendly_with_current_sigma_05_lam_09", rho(0.2), ascent::Friendly().sigma(0.5).with_current(true));
    add_set<VaSSO>("vasso_theta_09", rho(0.2));
    add("vasso_theta_04_zero_start", rho(0.2), ascent::VarianceSuppressed().theta(0.4).zero_start(true));
    add("ssam_fisher_sparsity_05_interval_4", rho(0.2), ascent::FisherMask().interval(4));
    add("ssam_fisher_sparsity_08_interval_1", rho(0.2), ascent::FisherMask().sparsity(0.8).interval(1));
    add("friendly_over_gcsam", rho(0.2), ascent::Chain(ascent::Friendly(), ascent::Centralize()));
    add("lesam_sigma_03", rho(0.2).radius(schedule::inverse_norm(schedule::cosine(0.3, 0.0, 20))), ascent::Gradient());
    add("unified_l_05", rho(0.2).radius(schedule::unified(0.5)), ascent::Gradient());
    add_set<SAM>("sam_two_ascents", rho(0.2), [](auto& sam) { sam.ascents(2); });
    make_["sam_ascent_first_three_samples"] = [base = base_options_](const Problem& problem) {
      auto optimizer = std::make_shared<SAM<Base>>(problem.parameters(), base, rho(0.2));
      optimizer->ascend_on([&problem] { return problem.evaluate(3); });
      return stepper(optimizer);
    };
    add("zsharp_75_tied", rho(0.2), filter(0.75));
    add("zsharp_75_tied_empty_tail_whole", rho(0.2), filter(0.75).empty_tail(EmptyTail::Whole));
  }

  void add_following(const std::string& name, double low, double high, double lowest_share) {
    make_[name] = [=, base = base_options_](const Problem& problem) {
      const double lr = base.get_lr();
      const auto options = rho(0.2).rho_schedule(schedule::proportional_to_lr(low, high, lowest_share * lr, lr));
      return stepper(std::make_shared<GSAM<Base>>(problem.parameters(), base, options),
                     [](double t) { return 1 - 0.9 * t / 20; });
    };
  }

  void add_final_gradients() {
    add_set<GSAM>("gsam_alpha_04", rho(0.2));
    add_following("gsam_alpha_04_rho_follows_lr", 0.05, 0.3, 0.1);
    add_following("gsam_alpha_04_rho_follows_lr_to_0", 0.0, 0.3, 0.4);
    add_set<WSAM>("wsam_gamma_09", rho(0.2), [](auto& wsam) { wsam.descent().decoupled(false); });
    add_set<WSAM>("wsam_gamma_09_decoupled", rho(0.2));
    add_set<StableSAM>("stablesam", rho(0.2));
    add_set<XSAM>("xsam_a_07", rho(0.15), [](auto& sam) { sam.descent().fixed(0.7); });
    add_set<XSAM>("xsam_search_every_3", {}, [](auto& sam) { sam.descent().interval(3); });
    add("looksam_over_zsharp_75", rho(0.2), filter(0.75), descent::Reuse());
    add("gsam_over_asam_paper", rho(0.5), ascent::AdaptiveScale(), descent::SurrogateGap());
  }

  BaseOptions base_options_;
  std::map<std::string, std::function<Stepper(const Problem&)>> make_;
};

/// MSAM over the bases that define where its average comes from.
template <class Base, class BaseOptions>
Stepper msam(const BaseOptions& base_options, const Problem& problem) {
  return stepper(std::make_shared<MSAM<Base>>(problem.parameters(), base_options, Options().rho(0.3)));
}
torch::optim::RMSpropOptions rmsprop_options(double momentum) {
  return torch::optim::RMSpropOptions(0.001).alpha(0.99).eps(1e-8).weight_decay(1e-3).momentum(momentum);
}

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
  if (run.base == "rmsprop") return msam<torch::optim::RMSprop>(rmsprop_options(0.9), problem);
  if (run.base == "rmsprop_no_momentum") return msam<torch::optim::RMSprop>(rmsprop_options(0.0), problem);
  if (run.base == "sgd_no_momentum")
    return msam<torch::optim::SGD>(torch::optim::SGDOptions(0.1).weight_decay(1e-3), problem);
  throw std::runtime_error("the trajectories name a base optimizer '" + run.base + "' that the test does not know");
}

class Baseline : public testing::TestWithParam<Trajectory> {};

TEST_P(Baseline, IsFollowedForTwentySteps) {
  Problem problem;
  if (GetParam().method.find("_tied") != std::string::npos) problem.tie();
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
  const std::set<std::string> msam_alone = {"msam_rho_03"};
  EXPECT_EQ(found, (std::map<std::string, std::set<std::string>>{{"sgd", over_sgd().names()},
                                                                 {"adam", over_adam().names()},
                                                                 {"adamw", over_adamw().names()},
                                                                 {"rmsprop", msam_alone},
                                                                 {"rmsprop_no_momentum", msam_alone},
                                                                 {"sgd_no_momentum", msam_alone}}));
}

INSTANTIATE_TEST_SUITE_P(Every, Baseline, testing::ValuesIn(baselines().runs),
                         [](const testing::TestParamInfo<Trajectory>& each) {
                           return each.param.method + "_over_" + each.param.base;
                         });

}  // namespace
}  // namespace steppe
