// One interface for every SharpnessAware<Base, Ascent, Descent, Policy>, so that one suite tests them all.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <steppe/steppe.hpp>

namespace contract {

using Closure = std::function<at::Tensor()>;

class AnyOptimizer {
 public:
  virtual ~AnyOptimizer() = default;
  virtual torch::optim::Optimizer& base() = 0;
  virtual steppe::Options& options(size_t group) = 0;
  virtual at::Tensor step(Closure closure) = 0;
  virtual at::Tensor step() = 0;  ///< after a pass that the caller has made
  virtual void zero_grad() = 0;
  virtual void verify(steppe::Verify when) = 0;
  virtual bool ascend() = 0;
  virtual void descend() = 0;
  virtual void cancel() = 0;
  virtual void remember_rng() = 0;
  virtual void attach(const torch::nn::Module& model) = 0;
  virtual void replay_rng(bool on) = 0;
  virtual void after_pass_one(steppe::GradientHook hook) = 0;
  virtual void before_descent(steppe::GradientHook hook) = 0;
  virtual void clip_grad_norm(double max_norm) = 0;
  virtual void clip_grad_value(double limit) = 0;
  virtual void every(int64_t k) = 0;
  virtual void rho_schedule(const steppe::schedule::Schedule& rho) = 0;
  virtual const steppe::Report& report() const = 0;
  virtual int64_t steps() const = 0;
  virtual int64_t non_finite_steps() const = 0;
};

using Groups = std::vector<torch::optim::OptimizerParamGroup>;

template <class Base, class Ascent, class Descent, class Policy>
class Handle : public AnyOptimizer {
 public:
  template <class BaseOptions>
  Handle(const Groups& groups, const BaseOptions& base_options, steppe::Options options, Ascent ascent, Descent descent,
         Policy policy)
      : optimizer_(groups, base_options, std::move(options), std::move(ascent), std::move(descent)) {
    optimizer_.policy() = std::move(policy);
    optimizer_.every(1);  // every step in two passes, whatever the method's own interval
  }

  torch::optim::Optimizer& base() override { return optimizer_; }
  steppe::Options& options(size_t group) override { return optimizer_.options(group); }
  at::Tensor step(Closure closure) override { return optimizer_.step(std::move(closure)); }
  at::Tensor step() override { return optimizer_.step(); }
  void zero_grad() override { optimizer_.zero_grad(); }
  void verify(steppe::Verify when) override { optimizer_.replay(when); }
  bool ascend() override { return optimizer_.ascend(); }
  void descend() override { optimizer_.descend(); }
  void cancel() override { optimizer_.cancel(); }
  void remember_rng() override { optimizer_.remember_rng(); }
  void attach(const torch::nn::Module& model) override { optimizer_.attach(model); }
  void replay_rng(bool on) override { optimizer_.replay_rng(on); }
  void after_pass_one(steppe::GradientHook hook) override { optimizer_.after_pass_one(std::move(hook)); }
  void before_descent(steppe::GradientHook hook) override { optimizer_.before_descent(std::move(hook)); }
  void clip_grad_norm(double max_norm) override { optimizer_.clip_grad_norm(max_norm); }
  void clip_grad_value(double limit) override { optimizer_.clip_grad_value(limit); }
  void every(int64_t k) override { optimizer_.every(k); }
  void rho_schedule(const steppe::schedule::Schedule& rho) override { optimizer_.rho_schedule(rho); }
  const steppe::Report& report() const override { return optimizer_.report(); }
  int64_t steps() const override { return optimizer_.steps(); }
  int64_t non_finite_steps() const override { return optimizer_.non_finite_steps(); }

 private:
  steppe::SharpnessAware<Base, Ascent, Descent, Policy> optimizer_;
};

/// A method over a base, ready to be made.
struct Method {
  std::string name;
  bool changes_descent = false;  ///< the final gradient is not g+ itself
  bool is_ahead = false;         ///< the only pass of a step is made at w + e
  std::function<std::unique_ptr<AnyOptimizer>(const Groups&)> make;
};

/// A base optimizer with all methods over it.
struct BaseUnderTest {
  std::string name;
  bool needs_closure = false;   ///< evaluates several times a step
  bool groups_later = true;     ///< add_param_group works after construction
  bool reduced_dtypes = false;  ///< its own step works in half and bfloat16 on the CPU
  std::function<std::unique_ptr<torch::optim::Optimizer>(const Groups&)> make;
  std::vector<Method> methods;
};

}  // namespace contract
