// How a plan is made, and the gradients that lie in its parameters in the course of a step.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/step/step_plan.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

STEPPE_INLINE GroupPlan& StepPlan::add_group(const torch::optim::OptimizerParamGroup& group, Direction direction,
                                             const Options& options) {
  TORCH_CHECK(groups.empty() || kernels::exact::are_equal(options.p(), groups.front().direction.recipe.p),
              "steppe: parameter groups share one norm, but group 0 has p = ", groups.front().direction.recipe.p,
              " and group ", groups.size(), " has p = ", options.p());
  const bool follows_lr = options.rho_schedule().needs_lr() && options.rho() > 0.0;
  GroupPlan plan;
  plan.params = group.params();
  plan.direction = std::move(direction);
  plan.direction.recipe.p = options.p();
  plan.direction.recipe.radius = options.radius().at(step);
  plan.direction.recipe.radius.sigma /= static_cast<double>(ascents);  // as rho is
  plan.rho = options.rho_at(step, follows_lr ? group.options().get_lr() : 0.0);
  plan.in_norm = options.in_norm();
  plan.fused = options.fused();
  plan.placement = options.placement();
  return groups.emplace_back(std::move(plan));
}

STEPPE_INLINE bool StepPlan::is_ahead() const {
  return std::any_of(groups.begin(), groups.end(),
                     [](const GroupPlan& group) { return group.direction.source != nullptr; });
}

STEPPE_INLINE bool StepPlan::uses_first() const {
  return decides || needs_first_squares ||
         std::any_of(groups.begin(), groups.end(), [](const GroupPlan& group) { return group.needs_first_gradient; });
}

STEPPE_INLINE std::vector<c10::Device> StepPlan::devices() const {
  std::vector<c10::Device> found;
  for_each_param([&](const at::Tensor& param) {
    if (std::find(found.begin(), found.end(), param.device()) == found.end()) found.push_back(param.device());
  });
  return found;
}

STEPPE_INLINE std::vector<at::Tensor> StepPlan::params() const {
  std::vector<at::Tensor> all;
  for (const GroupPlan& group : groups) all.insert(all.end(), group.params.begin(), group.params.end());
  return all;
}

STEPPE_INLINE void StepPlan::clear_gradients(const step::ProgramsGradients& programs) const {
  for_each_param([&](const at::Tensor& param) { programs.clear(param); });
}

STEPPE_INLINE bool StepPlan::any_gradient() const {
  bool any = false;
  for_each_param([&](const at::Tensor& param) { any = any || param.grad().defined(); });
  return any;
}

STEPPE_INLINE std::vector<at::Tensor> StepPlan::existing_gradients() const {
  std::vector<at::Tensor> all;
  for_each_param([&](const at::Tensor& param) {
    if (param.grad().defined()) all.push_back(param.grad());
  });
  return all;
}

STEPPE_INLINE void StepPlan::run(const GradientHook& hook, const step::ProgramsGradients& programs) const {
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
                "steppe: a gradient hook must leave gradients of their parameters' shape, dtype and device; number ", i,
                " does not fit its parameter of shape ", owners[i].sizes());
  for (size_t i = 0; i < owners.size(); ++i) programs.assign(owners[i], gradients[i]);
}

STEPPE_INLINE std::vector<std::vector<at::Tensor>> StepPlan::gradients(const step::ProgramsGradients& programs) const {
  std::vector<std::vector<at::Tensor>> found;
  for (const GroupPlan& group : groups) found.push_back(gradients_of(group, programs));
  return found;
}

STEPPE_INLINE void StepPlan::add_gradients(std::vector<std::vector<at::Tensor>>& sums,
                                           const step::ProgramsGradients& programs) const {
  const c10::NoGradGuard no_grad;
  std::vector<std::vector<at::Tensor>> found = gradients(programs);
  if (sums.empty()) {
    sums = std::move(found);
    return;
  }
  for (size_t k = 0; k < sums.size(); ++k)
    for (size_t i = 0; i < sums[k].size(); ++i)
      if (found[k][i].defined()) sums[k][i] = sums[k][i].defined() ? sums[k][i] + found[k][i] : found[k][i];
}

STEPPE_INLINE std::vector<std::vector<at::Tensor>> StepPlan::first_gradients(
    const step::ProgramsGradients& programs) const {
  std::vector<std::vector<at::Tensor>> first(groups.size());
  for (size_t k = 0; k < first.size(); ++k) {
    if (groups[k].needs_first_gradient) first[k] = gradients_of(groups[k], programs);
    first[k].resize(groups[k].params.size());
  }
  return first;
}

STEPPE_INLINE void StepPlan::put_back(const std::vector<std::vector<at::Tensor>>& gradients,
                                      const step::ProgramsGradients& programs) const {
  for (size_t k = 0; k < groups.size(); ++k)
    for (size_t i = 0; i < groups[k].params.size(); ++i) programs.assign(groups[k].params[i], gradients[k][i]);
}

STEPPE_INLINE void StepPlan::descend(const std::vector<std::vector<at::Tensor>>& first,
                                     const descent::StepGradients& seen, const step::ProgramsGradients& programs,
                                     const std::function<bool(const at::Tensor&)>& takes_part) const {
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

STEPPE_INLINE void StepPlan::descend_together(const std::vector<std::vector<at::Tensor>>& first,
                                              const descent::StepGradients& seen,
                                              const step::ProgramsGradients& programs,
                                              const std::function<bool(const at::Tensor&)>& takes_part) const {
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

STEPPE_INLINE std::vector<at::Tensor> StepPlan::gradients_of(const GroupPlan& group,
                                                             const step::ProgramsGradients& programs) {
  std::vector<at::Tensor> found;
  for (const at::Tensor& param : group.params) found.push_back(programs.kept(param.grad()));
  return found;
}

STEPPE_NAMESPACE_END
