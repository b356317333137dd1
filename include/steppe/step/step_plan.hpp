// What one step does with each parameter group, and the gradients that lie there meanwhile.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <vector>

#include <steppe/direction.hpp>
#include <steppe/placement.hpp>
#include <steppe/step/programs_gradients.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// Sees, and may change or replace, every gradient that exists.
using GradientHook = std::function<void(std::vector<at::Tensor>& gradients)>;

/// What one step does with one parameter group.
struct GroupPlan {
  std::vector<at::Tensor> params;
  Direction direction;
  double rho = 0.05;
  bool in_norm = true;
  bool fused = true;
  Placement placement = Placement::Auto;
  /// (final, first): turns the gradients at w + e into what the base optimizer consumes; empty: leaves them.
  std::function<void(std::vector<at::Tensor>&, const std::vector<at::Tensor>&)> descent;
  bool needs_first_gradient = false;
};

/// What one step does.
struct StepPlan {
  std::vector<GroupPlan> groups;
  bool perturb = true;  ///< false: one pass, as the base optimizer would

  template <class Visitor>
  void for_each_param(Visitor&& visit) const {
    for (const GroupPlan& group : groups)
      for (const at::Tensor& param : group.params) visit(param);
  }

  std::vector<c10::Device> devices() const {
    std::vector<c10::Device> found;
    for_each_param([&](const at::Tensor& param) {
      if (std::find(found.begin(), found.end(), param.device()) == found.end()) found.push_back(param.device());
    });
    return found;
  }

  std::vector<at::Tensor> params() const {
    std::vector<at::Tensor> all;
    for (const GroupPlan& group : groups) all.insert(all.end(), group.params.begin(), group.params.end());
    return all;
  }

  void clear_gradients(const step::ProgramsGradients& programs) const {
    for_each_param([&](const at::Tensor& param) { programs.clear(param); });
  }

  bool any_gradient() const {
    bool any = false;
    for_each_param([&](const at::Tensor& param) { any = any || param.grad().defined(); });
    return any;
  }

  void run(const GradientHook& hook, const step::ProgramsGradients& programs) const {
    if (!hook) return;
    const c10::NoGradGuard no_grad;
    std::vector<at::Tensor> owners, gradients;
    for_each_param([&](const at::Tensor& param) {
      if (!param.grad().defined()) return;
      owners.push_back(param);
      gradients.push_back(param.grad());
    });
    hook(gradients);
    TORCH_CHECK(gradients.size() == owners.size(), "steppe: a gradient hook must keep the number of gradients, got ",
                gradients.size(), " for ", owners.size());
    for (size_t i = 0; i < owners.size(); ++i)
      TORCH_CHECK(gradients[i].defined() && gradients[i].sizes() == owners[i].sizes() &&
                      gradients[i].dtype() == owners[i].dtype() && gradients[i].device() == owners[i].device(),
                  "steppe: a gradient hook must leave gradients of their parameters' shape, dtype and device; number ",
                  i, " does not fit its parameter of shape ", owners[i].sizes());
    for (size_t i = 0; i < owners.size(); ++i) programs.assign(owners[i], gradients[i]);
  }

  /// Those of each group, beside its parameters, as they are now.
  std::vector<std::vector<at::Tensor>> gradients(const step::ProgramsGradients& programs) const {
    std::vector<std::vector<at::Tensor>> found;
    for (const GroupPlan& group : groups) found.push_back(gradients_of(group, programs));
    return found;
  }

  /// The same of the groups whose descent needs them, else undefined ones.
  std::vector<std::vector<at::Tensor>> first_gradients(const step::ProgramsGradients& programs) const {
    std::vector<std::vector<at::Tensor>> first(groups.size());
    for (size_t k = 0; k < first.size(); ++k) {
      if (groups[k].needs_first_gradient) first[k] = gradients_of(groups[k], programs);
      first[k].resize(groups[k].params.size());
    }
    return first;
  }

  void put_back(const std::vector<std::vector<at::Tensor>>& gradients, const step::ProgramsGradients& programs) const {
    for (size_t k = 0; k < groups.size(); ++k)
      for (size_t i = 0; i < groups[k].params.size(); ++i) programs.assign(groups[k].params[i], gradients[k][i]);
  }

  /// Makes the final gradients of those at w + e and the `first` ones.
  void descend(const std::vector<std::vector<at::Tensor>>& first, const step::ProgramsGradients& programs) const {
    const c10::NoGradGuard no_grad;
    for (size_t k = 0; k < groups.size(); ++k) {
      const GroupPlan& group = groups[k];
      if (!group.descent) continue;
      std::vector<at::Tensor> owners, final_gradients, of_pass_one;
      for (size_t i = 0; i < group.params.size(); ++i) {
        if (!group.params[i].grad().defined()) continue;
        owners.push_back(group.params[i]);
        final_gradients.push_back(group.params[i].grad());
        of_pass_one.push_back(first[k][i]);
      }
      group.descent(final_gradients, of_pass_one);
      for (size_t i = 0; i < owners.size(); ++i) programs.assign(owners[i], final_gradients[i]);
    }
  }

 private:
  static std::vector<at::Tensor> gradients_of(const GroupPlan& group, const step::ProgramsGradients& programs) {
    std::vector<at::Tensor> found;
    for (const at::Tensor& param : group.params) found.push_back(programs.kept(param.grad()));
    return found;
  }
};

STEPPE_NAMESPACE_END
