// Weights moved to w + e in a scope, and exactly back at its end.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/ascent/gradient.hpp>
#include <steppe/direction.hpp>
#include <steppe/kernels/dispatch.hpp>
#include <steppe/placement.hpp>

namespace steppe {

/// One parameter group's part of an ascent.
struct AscentGroup {
  std::vector<at::Tensor> params;
  std::vector<at::Tensor> gradients;  ///< beside params; undefined ones are skipped
  std::vector<bool> norm_gains;       ///< beside params, or empty for none
  std::vector<bool> spare;            ///< beside params, or empty for none: the gradient may be overwritten
  Direction direction;
  double rho = 0.0;
  bool in_norm = true;
  bool fused = true;
  Placement placement = Placement::Auto;
};

/// What is kept from one perturbation to the next, so that none allocates when nothing has changed.
class PerturbationMemory {
 public:
  /// Buffers of weights and of the kernels.
  int64_t bytes() const { return placed_.bytes() + workspace_.bytes(); }
  /// Frees them; not while a perturbation lives.
  void release() {
    placed_.release();
    workspace_.release();
  }
  Placement placement(const at::Tensor& param) const { return placed_.placement(param); }

 private:
  friend class Perturbation;

  PlacedParameters placed_;
  kernels::Workspace workspace_;
  std::vector<AscentTask> tasks_;
};

namespace detail {

/// The directions of a group before the fused part: gradients made dense, custom links run. Nothing is changed.
inline std::vector<at::Tensor> directions_of(const AscentGroup& group, const std::vector<at::Tensor>& params,
                                             const std::vector<at::Tensor>& gradients) {
  std::vector<at::Tensor> directions;
  for (const at::Tensor& g : gradients) {
    at::Tensor dense = g.layout() == at::kStrided ? g : g.detach().to_dense();
    directions.push_back(dense.requires_grad() ? dense.detach() : dense);
  }
  if (group.direction.links.empty()) return directions;
  for (at::Tensor& direction : directions) direction = direction.clone();
  for (const CustomLink& link : group.direction.links) {
    link(directions, params);
    TORCH_CHECK(directions.size() == params.size(), "steppe: an ascent link returned ", directions.size(),
                " directions for ", params.size(), " parameters; it must keep their number");
  }
  for (size_t i = 0; i < params.size(); ++i)
    TORCH_CHECK(directions[i].defined() && directions[i].sizes() == params[i].sizes(),
                "steppe: an ascent link must return directions of their parameters' shapes; number ", i, " has ",
                directions[i].defined() ? "another shape" : "none");
  return directions;
}

}  // namespace detail

/// While it lives the parameters are w + e with e = rho * d / |d|; at the end of its scope, whatever ended it, they are
/// again w bit for bit, at the same addresses (arXiv 2010.01412).
///
/// Serves an optimizer that already exists, and measurements. Cost: one ascent; memory: one copy of the perturbed
/// parameters, or none where the gradients' own memory may be used. Inside, data_ptr() is another one unless the
/// parameter shares its memory. If |d| is zero or not finite the parameters do not move.
///
///     loss.backward();
///     { steppe::Perturbation at(parameters, gradients, 0.05); /* weights are w + e here */ }
class Perturbation {
 public:
  /// The gradients are left as they are. Errors: sizes that differ, rho that is negative or not finite, shapes that do
  /// not fit.
  template <class Ascent = ascent::Gradient>
  Perturbation(std::vector<at::Tensor> params, std::vector<at::Tensor> gradients, double rho,
               Ascent ascent = Ascent())
      : Perturbation({group_of(std::move(params), std::move(gradients), rho, ascent)}) {}

  /// Several groups under one global norm. `memory` is kept from one perturbation to the next; it serves one at a time.
  /// Errors: lists beside params of another length, shapes that do not fit, a parameter twice, rho that is negative or
  /// not finite, groups of different norm orders.
  explicit Perturbation(const std::vector<AscentGroup>& groups,
                        std::shared_ptr<PerturbationMemory> memory = std::make_shared<PerturbationMemory>())
      : memory_(std::move(memory)) {
    const c10::NoGradGuard no_grad;
    check(groups);
    const Tasks tasks(memory_->tasks_);
    for (const AscentGroup& group : groups) append_tasks(group);
    if (tasks.all.empty()) return;
    result_ = memory_->workspace_.ascend(tasks.all);
    for (const AscentTask& task : tasks.all) {
      if (!task.moved || task.destination.is_same(task.param)) continue;
      weights_.add(task.param, task.param.variable_data(), false);
      MovedWeights::point(task.param, task.destination);
    }
  }

  Perturbation(const Perturbation&) = delete;
  Perturbation& operator=(const Perturbation&) = delete;

  /// Puts the weights back before the end of the scope; once.
  void restore() { weights_.restore(); }

  /// What the ascent saw; undefined tensors if no parameter had a gradient.
  const AscentResult& result() const { return result_; }

 private:
  /// The tasks of this ascent, whose tensors are let go when it is over, however it ends.
  struct Tasks {
    explicit Tasks(std::vector<AscentTask>& kept) : all(kept) { all.clear(); }
    ~Tasks() { all.clear(); }
    Tasks(const Tasks&) = delete;
    Tasks& operator=(const Tasks&) = delete;
    std::vector<AscentTask>& all;
  };

  /// A member, so that a constructor that throws half-way restores as well.
  class Weights {
   public:
    Weights() = default;
    Weights(const Weights&) = delete;
    Weights& operator=(const Weights&) = delete;
    ~Weights() {
      try {
        restore();
      } catch (const std::exception& error) {
        TORCH_WARN(error.what());
      }
    }

    void add(const at::Tensor& param, const at::Tensor& original, bool in_place) {
      moved_.emplace_back(param, original, in_place);
    }

    /// One that fails does not keep the others from their place.
    void restore() {
      const c10::NoGradGuard no_grad;
      std::string failures;
      for (const MovedWeights& each : moved_) try {
          each.restore();
        } catch (const std::exception& error) {
          failures += error.what();
        }
      moved_.clear();
      TORCH_CHECK(failures.empty(), "steppe: weights could not be put back: ", failures);
    }

   private:
    std::vector<MovedWeights> moved_;
  };

  static void check(const std::vector<AscentGroup>& groups) {
    std::unordered_set<const c10::TensorImpl*> seen;
    for (const AscentGroup& group : groups) {
      const size_t count = group.params.size();
      const auto fits = [count](size_t size) { return size == 0 || size == count; };
      TORCH_CHECK(group.gradients.size() == count && fits(group.norm_gains.size()) && fits(group.spare.size()),
                  "steppe: a Perturbation needs one gradient per parameter, got ", count, " parameters, ",
                  group.gradients.size(), " gradients, ", group.norm_gains.size(), " norm_gains and ",
                  group.spare.size(), " spare");
      TORCH_CHECK(std::isfinite(group.rho) && group.rho >= 0.0, "steppe: rho must be finite and at least 0, got ",
                  group.rho);
      TORCH_CHECK(group.direction.recipe.p == groups.front().direction.recipe.p,
                  "steppe: the groups of a Perturbation share one norm, but have p = ",
                  groups.front().direction.recipe.p, " and p = ", group.direction.recipe.p);
      for (const at::Tensor& param : group.params)
        TORCH_CHECK(seen.insert(param.unsafeGetTensorImpl()).second, "steppe: a parameter of shape ", param.sizes(),
                    " appears twice in a Perturbation; pass each tensor once");
    }
  }

  void append_tasks(const AscentGroup& group) {
    if (group.rho == 0.0 && !group.in_norm) return;
    std::vector<at::Tensor> params, gradients;
    std::vector<size_t> index;
    for (size_t i = 0; i < group.params.size(); ++i) {
      const at::Tensor& g = group.gradients[i];
      if (!g.defined()) continue;
      TORCH_CHECK(g.sizes() == group.params[i].sizes(), "steppe: a gradient of shape ", g.sizes(),
                  " does not fit its parameter of shape ", group.params[i].sizes());
      params.push_back(group.params[i]);
      gradients.push_back(g);
      index.push_back(i);
    }
    std::vector<at::Tensor> directions = detail::directions_of(group, params, gradients);
    for (size_t i = 0; i < params.size(); ++i) {
      AscentTask task;
      task.param = params[i];
      task.direction = std::move(directions[i]);
      task.recipe = group.direction.recipe;
      task.rho = group.rho;
      task.in_norm = group.in_norm;
      task.norm_gain = !group.norm_gains.empty() && group.norm_gains[index[i]];
      task.fused = group.fused;
      const bool is_gradient = task.direction.is_same(gradients[i]);
      gradients[i] = at::Tensor();
      const bool spare = detail::has_memory_of_its_own(task.direction) &&
                         (is_gradient ? !group.spare.empty() && group.spare[index[i]] : task.direction.use_count() == 1);
      if (group.rho > 0.0) place(task, group.placement, spare);
      memory_->tasks_.push_back(std::move(task));
    }
  }

  void place(AscentTask& task, Placement wish, bool spare) {
    PlacedWeights& placed = memory_->placed_.of(task.param);
    const Placement chosen = placed.choose(task.param, wish, task.direction, spare);
    task.destination = placed.destination(task.param, task.direction);
    if (chosen == Placement::InPlace) weights_.add(task.param, placed.buffer(), true);
  }

  template <class Ascent>
  static AscentGroup group_of(std::vector<at::Tensor> params, std::vector<at::Tensor> gradients, double rho,
                              Ascent& ascent) {
    detail::for_each_link(ascent, [](auto& link) { detail::validate(link); });
    AscentGroup group;
    group.params = std::move(params);
    group.gradients = std::move(gradients);
    group.direction = direction_of(ascent);
    group.rho = rho;
    return group;
  }

  std::shared_ptr<PerturbationMemory> memory_;
  Weights weights_;
  AscentResult result_;
};

}  // namespace steppe
