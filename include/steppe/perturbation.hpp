// Weights moved to w + e in a scope, and restored exactly at its end.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <steppe/ascent/gradient.hpp>
#include <steppe/direction.hpp>
#include <steppe/kernels/dispatch.hpp>
#include <steppe/kernels/dispatch_task.hpp>
#include <steppe/no_fast_math.hpp>
#include <steppe/placement.hpp>
#include <steppe/sharding.hpp>
#include <steppe/step/weights_in_use.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// One parameter group's part of an ascent.
struct AscentGroup {
  std::vector<at::Tensor> params;         ///< those of the group; no tensor twice
  std::vector<at::Tensor> gradients;      ///< beside params; undefined ones are skipped
  std::vector<bool> norm_gains;           ///< beside params, or empty for none
  std::vector<bool> spare;                ///< beside params, or empty for none: the gradient may be overwritten
  Direction direction;                    ///< how the direction is made of the gradients
  double rho = 0.0;                       ///< the radius; 0: the parameters do not move
  bool in_norm = true;                    ///< with rho 0: the gradients count in the global norm all the same
  bool fused = true;                      ///< false: by ATen operations instead of the fused kernels
  Placement placement = Placement::Auto;  ///< where w + e is to be written, if that is safe
};

class Perturbation;

/// Memory that perturbations reuse, so that nothing is allocated while the tensors stay the same.
class PerturbationMemory {
 public:
  PerturbationMemory();
  ~PerturbationMemory();
  PerturbationMemory(const PerturbationMemory&) = delete;
  PerturbationMemory& operator=(const PerturbationMemory&) = delete;
  /// Bytes of the buffers for weights and of the kernels' workspace.
  int64_t bytes() const { return placed_.bytes() + workspace_.bytes(); }
  /// Frees this memory; not while a perturbation uses it. Errors: a CUDA graph holds an ascent that writes to it.
  void release();
  /// Where the last perturbation wrote w + e of a parameter; Auto for one that was never perturbed.
  Placement placement(const at::Tensor& param) const { return placed_.placement(param); }

 private:
  friend class Perturbation;

  PlacedParameters placed_;
  kernels::Workspace workspace_;
  std::vector<AscentTask> tasks_;
  std::vector<MovedWeights> moved_;
  std::vector<const c10::TensorImpl*> seen_;
  const Perturbation* user_ = nullptr;
  bool captured_ = false;  ///< a CUDA graph uses it
};

namespace detail {

/// A gradient as the kernels take it: dense and detached.
inline at::Tensor dense(const at::Tensor& gradient) {
  const at::Tensor strided = gradient.layout() == at::kStrided ? gradient : gradient.detach().to_dense();
  return strided.requires_grad() ? strided.detach() : strided;
}

}  // namespace detail

/// While it lives the parameters are w + e with e = rho * d / |d|; at the end of its scope, also by an exception, they
/// are again w bit for bit, at the same addresses (arXiv 2010.01412).
///
/// For optimizers that exist already, and for measurements. Cost: one ascent; memory: one copy of the perturbed
/// parameters, or none where the gradients' own memory may be used. Inside the scope data_ptr() is different, unless
/// the parameter shares its memory. If |d| is zero or not finite the parameters do not move.
///
///     loss.backward();
///     { steppe::Perturbation at(parameters, gradients, 0.05); /* weights are w + e here */ }
class Perturbation {
 public:
  /// The gradients are left as they are. Errors: sizes that differ, rho that is negative or not finite, shapes that do
  /// not fit.
  template <class Ascent = ascent::Gradient>
  Perturbation(std::vector<at::Tensor> params, std::vector<at::Tensor> gradients, double rho, Ascent ascent = Ascent())
      : Perturbation({group_of(std::move(params), std::move(gradients), rho, ascent)}) {}

  /// Several groups under one global norm. `sharding`: how the parameters are sharded, if these are parts; every
  /// process makes the same perturbation at the same time. `memory` is reused from one perturbation to the next, and
  /// serves one at a time. Errors: memory that serves another one, weights that another thread perturbs at the same
  /// time, lists beside params of another length, shapes that do not fit, a parameter twice, rho that is negative or
  /// not finite, groups of different norm orders.
  explicit Perturbation(const std::vector<AscentGroup>& groups,
                        std::shared_ptr<PerturbationMemory> memory = std::make_shared<PerturbationMemory>(),
                        const Sharding* sharding = nullptr);

  ~Perturbation();
  Perturbation(const Perturbation&) = delete;
  Perturbation& operator=(const Perturbation&) = delete;

  /// Restores the weights before the end of the scope. Only the first call has an effect.
  void restore();

  /// Statistics of the ascent; undefined tensors if no parameter had a gradient.
  const AscentResult& result() const { return result_; }

 private:
  /// The memory while this perturbation uses it. A member, so that a constructor that throws half-way restores the
  /// weights as well.
  class Weights {
   public:
    Weights(PerturbationMemory& memory, const Perturbation& user);
    Weights(const Weights&) = delete;
    Weights& operator=(const Weights&) = delete;
    ~Weights();

    /// Only the first call has an effect. All weights are restored, even if one of them fails.
    void restore();

   private:
    PerturbationMemory& memory_;
    const Perturbation& user_;
  };
  struct Tasks;

  void check(const std::vector<AscentGroup>& groups);

  static std::vector<at::Tensor> moving(const std::vector<AscentGroup>& groups);

  void append_tasks(const AscentGroup& group);

  void append_custom_tasks(const AscentGroup& group);

  /// `spare`: nothing else reads the direction.
  void append_task(const AscentGroup& group, size_t index, at::Tensor direction, bool spare);

  void place(AscentTask& task, Placement wish, bool spare);

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
  step::WeightsInUse in_use_;  // until the weights are restored
  Weights weights_;
  AscentResult result_;
};

STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/perturbation.ipp>
#endif
