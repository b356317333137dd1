// How weights are perturbed and restored.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <steppe/direction.hpp>
#include <steppe/kernels/dispatch.hpp>
#include <steppe/kernels/dispatch_task.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/reference_sharded.hpp>
#include <steppe/perturbation.hpp>
#include <steppe/placement.hpp>
#include <steppe/sharding.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

namespace detail {

/// The directions that a group's custom links make of its gradients, which do not change.
inline std::vector<at::Tensor> custom_directions(const std::vector<CustomLink>& links,
                                                 const std::vector<at::Tensor>& params,
                                                 const std::vector<at::Tensor>& gradients) {
  std::vector<at::Tensor> directions;
  for (const at::Tensor& gradient : gradients) directions.push_back(dense(gradient).clone());
  for (const CustomLink& link : links) {
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

STEPPE_INLINE PerturbationMemory::PerturbationMemory() = default;
STEPPE_INLINE PerturbationMemory::~PerturbationMemory() = default;

/// The tasks of this ascent; their tensors are released when it ends, also by an exception.
struct Perturbation::Tasks {
  explicit Tasks(std::vector<AscentTask>& kept) : all(kept) { all.clear(); }
  ~Tasks() { all.clear(); }
  Tasks(const Tasks&) = delete;
  Tasks& operator=(const Tasks&) = delete;
  std::vector<AscentTask>& all;
};

STEPPE_INLINE Perturbation::Weights::Weights(PerturbationMemory& memory, const Perturbation& user)
    : memory_(memory), user_(user) {
  TORCH_CHECK(memory.user_ == nullptr,
              "steppe: a PerturbationMemory serves one Perturbation at a time; give each its own");
  memory.user_ = &user;
}

STEPPE_INLINE Perturbation::Weights::~Weights() {
  try {
    restore();
  } catch (const std::exception& error) {
    TORCH_WARN(error.what());
  }
}

STEPPE_INLINE void Perturbation::Weights::restore() {
  if (memory_.user_ != &user_) return;
  const c10::NoGradGuard no_grad;
  std::string failures;
  for (const MovedWeights& each : memory_.moved_) try {
      each.restore();
    } catch (const std::exception& error) {
      failures += error.what();
    }
  memory_.moved_.clear();
  memory_.user_ = nullptr;
  at::autocast::clear_cache();  // casts of w + e
  TORCH_CHECK(failures.empty(), "steppe: weights could not be restored: ", failures);
}

STEPPE_INLINE Perturbation::~Perturbation() = default;

STEPPE_INLINE Perturbation::Perturbation(const std::vector<AscentGroup>& groups,
                                         std::shared_ptr<PerturbationMemory> memory, const Sharding* sharding)
    : memory_(std::move(memory)), weights_(*memory_, *this) {
  const c10::NoGradGuard no_grad;
  check(groups);
  in_use_.add(moving(groups));  // before any of them is read
  const Tasks tasks(memory_->tasks_);
  for (const AscentGroup& group : groups) append_tasks(group);
  if (tasks.all.empty()) return;
  memory_->moved_.reserve(memory_->moved_.size() + tasks.all.size());  // nothing may throw between two weights
  result_ = sharding == nullptr ? memory_->workspace_.ascend(tasks.all) : reference::ascend(tasks.all, *sharding);
  if (kernels::is_capturing(tasks.all.front().param.device())) memory_->captured_ = true;
  for (const AscentTask& task : tasks.all)
    if (task.moved && !task.destination.is_same(task.param))
      memory_->moved_.push_back(MovedWeights::elsewhere(task.param, task.destination));
  at::autocast::clear_cache();  // casts of w
}

STEPPE_INLINE void Perturbation::restore() {
  weights_.restore();
  in_use_.release();
}

STEPPE_INLINE void Perturbation::check(const std::vector<AscentGroup>& groups) {
  std::vector<const c10::TensorImpl*>& seen = memory_->seen_;
  seen.clear();
  for (const AscentGroup& group : groups) {
    const size_t count = group.params.size();
    const auto fits = [count](size_t size) { return size == 0 || size == count; };
    TORCH_CHECK(group.gradients.size() == count && fits(group.norm_gains.size()) && fits(group.spare.size()),
                "steppe: a Perturbation needs one gradient per parameter, got ", count, " parameters, ",
                group.gradients.size(), " gradients, ", group.norm_gains.size(), " norm_gains and ", group.spare.size(),
                " spare");
    TORCH_CHECK(std::isfinite(group.rho) && group.rho >= 0.0, "steppe: rho must be finite and at least 0, got ",
                group.rho);
    TORCH_CHECK(kernels::exact::are_equal(group.direction.recipe.p, groups.front().direction.recipe.p),
                "steppe: the groups of a Perturbation share one norm, but have p = ", groups.front().direction.recipe.p,
                " and p = ", group.direction.recipe.p);
    for (const at::Tensor& param : group.params) seen.push_back(param.unsafeGetTensorImpl());
  }
  std::sort(seen.begin(), seen.end());
  const auto twice = std::adjacent_find(seen.begin(), seen.end());
  TORCH_CHECK(twice == seen.end(), "steppe: a parameter of shape ", (*twice)->sizes(),
              " appears twice in a Perturbation; pass each tensor once");
  seen.clear();
  for (const AscentGroup& group : groups)
    for (size_t i = 0; i < group.spare.size(); ++i)
      if (group.spare[i] && group.gradients[i].defined()) seen.push_back(group.gradients[i].unsafeGetTensorImpl());
  std::sort(seen.begin(), seen.end());
  TORCH_CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end(),
              "steppe: one gradient of two parameters is marked spare; only one can be written to");
}

STEPPE_INLINE std::vector<at::Tensor> Perturbation::moving(const std::vector<AscentGroup>& groups) {
  std::vector<at::Tensor> params;
  for (const AscentGroup& group : groups)
    for (size_t i = 0; group.rho > 0.0 && i < group.params.size(); ++i)
      if (group.gradients[i].defined()) params.push_back(group.params[i]);
  return params;
}

STEPPE_INLINE void Perturbation::append_tasks(const AscentGroup& group) {
  if (kernels::exact::is_zero(group.rho) && !group.in_norm) return;
  for (size_t i = 0; i < group.params.size(); ++i)
    TORCH_CHECK(!group.gradients[i].defined() || group.gradients[i].sizes() == group.params[i].sizes(),
                "steppe: a gradient of shape ", group.gradients[i].sizes(), " does not fit its parameter of shape ",
                group.params[i].sizes());
  if (!group.direction.links.empty()) return append_custom_tasks(group);
  for (size_t i = 0; i < group.params.size(); ++i) {
    const at::Tensor& gradient = group.gradients[i];
    if (!gradient.defined()) continue;
    at::Tensor direction = detail::dense(gradient);
    const bool spare =
        direction.is_same(gradient) ? !group.spare.empty() && group.spare[i] : direction.use_count() == 1;
    append_task(group, i, std::move(direction), spare);
  }
}

STEPPE_INLINE void Perturbation::append_custom_tasks(const AscentGroup& group) {
  std::vector<at::Tensor> params, gradients;
  std::vector<size_t> index;
  for (size_t i = 0; i < group.params.size(); ++i) {
    if (!group.gradients[i].defined()) continue;
    params.push_back(group.params[i]);
    gradients.push_back(group.gradients[i]);
    index.push_back(i);
  }
  std::vector<at::Tensor> directions = detail::custom_directions(group.direction.links, params, gradients);
  const bool raw = group.direction.recipe.norm != Norm::Direction;
  for (size_t i = 0; i < index.size(); ++i) {
    const bool spare = directions[i].use_count() == 1;
    append_task(group, index[i], std::move(directions[i]), spare);
    if (raw) memory_->tasks_.back().gradient = detail::dense(gradients[i]);
  }
}

STEPPE_INLINE void Perturbation::append_task(const AscentGroup& group, size_t index, at::Tensor direction, bool spare) {
  AscentTask& task = memory_->tasks_.emplace_back();
  task.param = group.params[index];
  task.direction = std::move(direction);
  task.recipe = group.direction.recipe;
  task.rho = group.rho;
  task.in_norm = group.in_norm;
  task.norm_gain = !group.norm_gains.empty() && group.norm_gains[index];
  task.fused = group.fused;
  if (group.rho > 0.0) place(task, group.placement, spare && detail::has_memory_of_its_own(task.direction));
}

STEPPE_INLINE void Perturbation::place(AscentTask& task, Placement wish, bool spare) {
  PlacedWeights& placed = memory_->placed_.of(task.param);
  const Placement chosen = placed.choose(task.param, wish, task.direction, spare);
  task.destination = placed.destination(task.param, task.direction);
  if (chosen == Placement::InPlace) memory_->moved_.push_back(MovedWeights::in_place(task.param, placed.buffer()));
}

STEPPE_INLINE void PerturbationMemory::release() {
  TORCH_CHECK(
      !captured_,
      "steppe: release_memory() was called, but a CUDA graph was captured that writes to that memory whenever it is "
      "replayed; destroy the graph first, then the optimizer");
  placed_.release();
  workspace_.release();
}

STEPPE_NAMESPACE_END
