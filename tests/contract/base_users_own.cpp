// SPDX-License-Identifier: MIT
#include <torch/optim/serialize.h>

#include "methods.hpp"

namespace {

/// What a user might write: descent along the sign of the gradient, with only what LibTorch requires.
struct SignOptions : torch::optim::OptimizerCloneableOptions<SignOptions> {
  explicit SignOptions(double lr = 0.01) : lr_(lr) {}
  double get_lr() const override { return lr_; }
  void set_lr(double lr) override { lr_ = lr; }
  void serialize(torch::serialize::OutputArchive& archive) const override { archive.write("lr", c10::IValue(lr_)); }
  void serialize(torch::serialize::InputArchive& archive) override {
    c10::IValue lr;
    archive.read("lr", lr);
    lr_ = lr.toDouble();
  }

 private:
  double lr_;
};

struct SignState : torch::optim::OptimizerCloneableParamState<SignState> {
  void serialize(torch::serialize::OutputArchive&) const override {}
  void serialize(torch::serialize::InputArchive&) override {}
};

class SignDescent : public torch::optim::Optimizer {
 public:
  SignDescent(std::vector<torch::optim::OptimizerParamGroup> groups, const SignOptions& defaults)
      : Optimizer(std::move(groups), std::make_unique<SignOptions>(defaults)) {}

  at::Tensor step(LossClosure closure = nullptr) override {
    const torch::NoGradGuard no_grad;
    at::Tensor loss;
    if (closure) {
      const c10::AutoGradMode enable_grad(true);
      loss = closure();
    }
    for (auto& group : param_groups_)
      for (auto& param : group.params())
        if (param.grad().defined()) param.sub_(param.grad().sign(), group.options().get_lr());
    return loss;
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    torch::optim::serialize<SignState, SignOptions>(archive, *this);
  }
  void load(torch::serialize::InputArchive& archive) override {
    torch::optim::serialize<SignState, SignOptions>(archive, *this);
  }
};

}  // namespace

contract::BaseUnderTest contract::users_own() { return base_under_test<SignDescent>("UsersOwn", SignOptions(0.01)); }
