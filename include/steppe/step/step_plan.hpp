// What one step does with each parameter group, and the gradients that lie there meanwhile.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include <steppe/descent/step_gradients.hpp>
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

/// What one step does. Methods are made of these few parts:
///
/// - when: `perturb`, known before pass 1, and `decides`, asked after it;
/// - where to: each group's direction, from the gradient of pass 1 or from a source that is known before it;
/// - along what: each group's descent, or one over all groups.
///
/// What a method keeps from step to step is its own; the optimizer tells it when a step has been made.
struct StepPlan {
  std::vector<GroupPlan> groups;
  bool perturb = true;  ///< false: one pass, as the base optimizer would
  int64_t step = 0;
  /// Whether this step is perturbed, given |g|^2 over all gradients of pass 1; empty: it is.
  std::function<bool(double squared_norm)> decides;
  /// Makes the final gradients of all groups together, in the place of the groups' own descents.
  std::function<void(std::vector<descent::GroupGradients>&, const descent::StepGradients&)> descent;
  bool needs_first_squares = false;  ///< by that descent
  bool sees_all_gradients = false;   ///< those that pass 2 did not give, too
  /// Gradients of the only pass of a step whose direction was known before it, by group: as after_pass_one() left them.
  std::function<void(const std::vector<std::vector<at::Tensor>>&)> learns;
  int64_t ascents = 1;  ///< of rho / ascents each

  /// The only pass is made at w + e.
  bool is_ahead() const {
    return std::any_of(groups.begin(), groups.end(),
                       [](const GroupPlan& group) { return group.direction.source != nullptr; });
  }

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
  template <class TakesPart>
  void descend(const std::vector<std::vector<at::Tensor>>& first, const descent::StepGradients& seen,
               const step::ProgramsGradients& programs, const TakesPart& takes_part) const {
    const c10::NoGradGuard no_grad;
    if (descent) return descend_together(first, seen, programs, takes_part);
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
  template <class TakesPart>
  void descend_together(const std::vector<std::vector<at::Tensor>>& first, const descent::StepGradients& seen,
                        const step::ProgramsGradients& programs, const TakesPart& takes_part) const {
    std::vector<descent::GroupGradients> all(groups.size());
    for (size_t k = 0; k < groups.size(); ++k)
      for (size_t i = 0; i < groups[k].params.size(); ++i) {
        const at::Tensor& param = groups[k].params[i];
        if (!param.grad().defined() && !(sees_all_gradients && first[k][i].defined())) continue;
        all[k].params.push_back(param);
        all[k].final.push_back(param.grad());
        all[k].first.push_back(first[k][i]);
        all[k].takes_part.push_back(groups[k].rho > 0.0 && takes_part(param));
      }
    descent(all, seen);
    for (const descent::GroupGradients& group : all)
      for (size_t i = 0; i < group.params.size(); ++i) programs.assign(group.params[i], group.final[i]);
  }

  static std::vector<at::Tensor> gradients_of(const GroupPlan& group, const step::ProgramsGradients& programs) {
    std::vector<at::Tensor> found;
    for (const at::Tensor& param : group.params) found.push_back(programs.kept(param.grad()));
    return found;
  }
};

STEPPE_NAMESPACE_END
