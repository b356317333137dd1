// What one step does with each parameter group, and the gradients of its parameters meanwhile.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <torch/optim/optimizer.h>

#include <cstdint>
#include <functional>
#include <vector>

#include <steppe/descent/step_gradients.hpp>
#include <steppe/direction.hpp>
#include <steppe/options.hpp>
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
/// - when: `perturb`, known before pass 1, and `decides`, called after it;
/// - where to: each group's direction, from the gradient of pass 1 or from a source that is known before it;
/// - along what: each group's descent, or one over all groups.
///
/// A method keeps its own state from step to step; the optimizer informs it when a step has been made.
struct StepPlan {
  std::vector<GroupPlan> groups;
  bool perturb = true;  ///< false: one pass, as the base optimizer would
  int64_t step = 0;
  /// Whether this step is perturbed, given |g|^2 over all gradients of pass 1; empty: it is.
  std::function<bool(double squared_norm)> decides;
  /// Makes the final gradients of all groups together, in the place of the groups' own descents.
  std::function<void(std::vector<descent::GroupGradients>&, const descent::StepGradients&)> descent;
  bool needs_first_squares = false;  ///< by that descent
  bool sees_all_gradients = false;   ///< also those that pass 2 did not give
  bool ascent_keeps_state = false;   ///< the direction is also made of earlier gradients
  bool descent_mixes = false;        ///< components of a gradient with others of it, or with another gradient
  /// Gradients of the only pass of a step whose direction was known before it, by group: as after_pass_one() left them.
  std::function<void(const std::vector<std::vector<at::Tensor>>&)> learns;
  int64_t ascents = 1;  ///< of rho / ascents each

  /// Appends a group, once `step` and `ascents` are set. Errors: groups of different norm orders; a rho schedule that
  /// follows the learning rate over a base without one.
  GroupPlan& add_group(const torch::optim::OptimizerParamGroup& group, Direction direction, const Options& options);

  /// Whether the only pass is made at w + e.
  bool is_ahead() const;

  /// Whether the gradient of pass 1 is used for more than the perturbation.
  bool uses_first() const;

  template <class Visitor>
  void for_each_param(Visitor&& visit) const {
    for (const GroupPlan& group : groups)
      for (const at::Tensor& param : group.params) visit(param);
  }

  std::vector<c10::Device> devices() const;

  std::vector<at::Tensor> params() const;

  void clear_gradients(const step::ProgramsGradients& programs) const;

  bool any_gradient() const;

  /// The gradients that exist, in one list.
  std::vector<at::Tensor> existing_gradients() const;

  void run(const GradientHook& hook, const step::ProgramsGradients& programs) const;

  /// The gradients of each group, beside its parameters, as they are now.
  std::vector<std::vector<at::Tensor>> gradients(const step::ProgramsGradients& programs) const;

  /// Adds those that exist now to `sums`, which may be empty at first.
  void add_gradients(std::vector<std::vector<at::Tensor>>& sums, const step::ProgramsGradients& programs) const;

  /// The same of the groups whose descent needs them, else undefined ones.
  std::vector<std::vector<at::Tensor>> first_gradients(const step::ProgramsGradients& programs) const;

  void put_back(const std::vector<std::vector<at::Tensor>>& gradients, const step::ProgramsGradients& programs) const;

  /// Makes the final gradients of those at w + e and the `first` ones.
  void descend(const std::vector<std::vector<at::Tensor>>& first, const descent::StepGradients& seen,
               const step::ProgramsGradients& programs, const std::function<bool(const at::Tensor&)>& takes_part) const;

 private:
  void descend_together(const std::vector<std::vector<at::Tensor>>& first, const descent::StepGradients& seen,
                        const step::ProgramsGradients& programs,
                        const std::function<bool(const at::Tensor&)>& takes_part) const;

  static std::vector<at::Tensor> gradients_of(const GroupPlan& group, const step::ProgramsGradients& programs);
};

STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/step/step_plan.ipp>
#endif
