// Weights moved to w + e in a scope, and exactly back at its end.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <exception>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/ascent/gradient.hpp>
#include <steppe/direction.hpp>
#include <steppe/kernels/dispatch.hpp>

namespace steppe {

/// Buffers for the weights' original values, kept between perturbations so that none is allocated per step.
class WeightBuffers {
 public:
  /// A buffer of the parameter's shape, dtype and device.
  at::Tensor& of(const at::Tensor& param) {
    at::Tensor& buffer = buffers_[param.unsafeGetTensorImpl()];
    const bool fits = buffer.defined() && buffer.sizes() == param.sizes() && buffer.dtype() == param.dtype() &&
                      buffer.device() == param.device();
    if (!fits) buffer = at::empty_like(param.detach());
    return buffer;
  }
  void release() { buffers_.clear(); }

 private:
  std::unordered_map<const c10::TensorImpl*, at::Tensor> buffers_;
};

/// One parameter group's part of an ascent.
struct AscentGroup {
  std::vector<at::Tensor> params;
  std::vector<at::Tensor> gradients;  ///< beside params; undefined ones are skipped
  std::vector<bool> norm_gains;       ///< beside params, or empty for none
  Direction direction;
  double rho = 0.0;
  bool in_norm = true;
};

namespace detail {

/// Appends the group's tasks: gradients made dense, custom links run. Nothing of the group is changed.
inline void append_tasks(const AscentGroup& group, std::vector<AscentTask>& tasks) {
  if (group.rho == 0.0 && !group.in_norm) return;
  std::vector<at::Tensor> params, directions;
  std::vector<bool> gains;
  for (size_t i = 0; i < group.params.size(); ++i) {
    const at::Tensor& g = group.gradients[i];
    if (!g.defined()) continue;
    TORCH_CHECK(g.sizes() == group.params[i].sizes(), "steppe: a gradient of shape ", g.sizes(),
                " does not fit its parameter of shape ", group.params[i].sizes());
    params.push_back(group.params[i]);
    directions.push_back(g.layout() == at::kStrided ? g.detach() : g.detach().to_dense());
    gains.push_back(!group.norm_gains.empty() && group.norm_gains[i]);
  }
  if (params.empty()) return;
  if (!group.direction.links.empty())
    for (at::Tensor& direction : directions) direction = direction.clone();
  for (const CustomLink& link : group.direction.links) {
    link(directions, params);
    TORCH_CHECK(directions.size() == params.size(), "steppe: an ascent link returned ", directions.size(),
                " directions for ", params.size(), " parameters; it must keep their number");
  }
  for (size_t i = 0; i < params.size(); ++i) {
    TORCH_CHECK(directions[i].defined() && directions[i].sizes() == params[i].sizes(),
                "steppe: an ascent link must return directions of their parameters' shapes; number ", i, " has ",
                directions[i].defined() ? "another shape" : "none");
    tasks.push_back({params[i], directions[i], group.direction.recipe, group.rho, group.in_norm, gains[i]});
  }
}

}  // namespace detail

/// While it lives the parameters are w + e with e = rho * d / |d|; at the end of its scope, whatever ended it, they are
/// again w bit for bit, at the same addresses (arXiv 2010.01412).
///
/// Serves an optimizer that already exists, and measurements. Cost: one ascent and one restoring copy; memory: one copy
/// of the perturbed parameters. If |d| is zero or not finite the parameters do not move.
///
///     loss.backward();
///     { steppe::Perturbation at(parameters, gradients, 0.05); /* weights are w + e here */ }
class Perturbation {
 public:
  /// Errors: sizes that differ, rho that is negative or not finite, shapes that do not fit.
  template <class Ascent = ascent::Gradient>
  Perturbation(std::vector<at::Tensor> params, std::vector<at::Tensor> gradients, double rho,
               Ascent ascent = Ascent())
      : Perturbation({group_of(std::move(params), std::move(gradients), rho, ascent)}) {}

  /// Several groups under one global norm. `buffers`, where given, must outlive the perturbation.
  explicit Perturbation(const std::vector<AscentGroup>& groups, WeightBuffers* buffers = nullptr) {
    const c10::NoGradGuard no_grad;
    std::vector<AscentTask> tasks;
    for (const AscentGroup& group : groups) detail::append_tasks(group, tasks);
    if (tasks.empty()) return;
    // All originals are kept before anything moves: parameters may share memory.
    originals_.keep(tasks, buffers);
    result_ = kernels::ascend(tasks);
  }

  Perturbation(const Perturbation&) = delete;
  Perturbation& operator=(const Perturbation&) = delete;

  /// Puts the weights back before the end of the scope; once.
  void restore() { originals_.restore(); }

  /// What the ascent saw; undefined tensors if no parameter had a gradient.
  const AscentResult& result() const { return result_; }

 private:
  /// A member, so that a constructor that throws half-way restores as well.
  class Originals {
   public:
    Originals() = default;
    Originals(const Originals&) = delete;
    Originals& operator=(const Originals&) = delete;

    ~Originals() {
      try {
        restore();
      } catch (const std::exception& error) {
        TORCH_WARN("steppe: the weights could not be put back: ", error.what());
      }
    }

    void keep(const std::vector<AscentTask>& tasks, WeightBuffers* buffers) {
      for (const AscentTask& task : tasks) {
        if (task.rho == 0.0) continue;
        at::Tensor copy = buffers != nullptr ? buffers->of(task.param) : at::empty_like(task.param.detach());
        copy.copy_(task.param);
        kept_.emplace_back(task.param, std::move(copy));
      }
    }

    void restore() {
      const c10::NoGradGuard no_grad;
      for (auto& [param, original] : kept_) param.copy_(original);
      kept_.clear();
    }

   private:
    std::vector<std::pair<at::Tensor, at::Tensor>> kept_;
  };

  template <class Ascent>
  static AscentGroup group_of(std::vector<at::Tensor> params, std::vector<at::Tensor> gradients, double rho,
                              Ascent& ascent) {
    TORCH_CHECK(params.size() == gradients.size(), "steppe: a Perturbation needs one gradient per parameter, got ",
                params.size(), " parameters and ", gradients.size(), " gradients");
    TORCH_CHECK(std::isfinite(rho) && rho >= 0.0, "steppe: rho must be finite and at least 0, got ", rho);
    detail::for_each_link(ascent, [](auto& link) { detail::validate(link); });
    return {std::move(params), std::move(gradients), {}, direction_of(ascent), rho, true};
  }

  Originals originals_;
  AscentResult result_;
};

}  // namespace steppe
