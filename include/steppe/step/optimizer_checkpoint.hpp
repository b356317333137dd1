// What a sharpness-aware optimizer writes beside its base's state, and how both are read back.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <steppe/direction.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/schedule.hpp>
#include <steppe/step/attached.hpp>
#include <steppe/step/checkpoint.hpp>
#include <steppe/step/gradient_clipping.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// What a checkpoint has of an optimizer whatever its method: counters, schedules, and which parameters are perturbed.
struct OptimizerCounts {
  std::string base;  ///< the base optimizer's type
  int64_t step = 0;
  int64_t non_finite_steps = 0;
  int64_t non_finite_clips = 0;
  GradientClipping clipping;
  schedule::Steps steps;
  int64_t perturbed_steps = 0;
  int64_t skipped_steps = 0;
  int64_t ascents = 1;
  std::vector<at::Tensor> takes_part;  ///< of each group, a flag for each parameter

  static std::string prefix_of(size_t group);
  /// Notes which parameters of an optimizer take part.
  void note_participation(const torch::optim::Optimizer& optimizer, const Participation& participation);
  /// The other way round.
  void restore_participation(const torch::optim::Optimizer& optimizer, Participation& participation) const;

 protected:
  void write_counts(torch::serialize::OutputArchive& archive) const;
  /// Errors: another format, base, number of groups or of parameters; fields that are missing or not valid. Settings
  /// are read where the archive is `of_this_method`.
  void read_counts(torch::serialize::InputArchive& archive, bool of_this_method);

 private:
  static constexpr int64_t kFormat = 2;
};

/// The same with the policy and the settings of every group (`Group`: GroupSettings).
template <class Group, class Policy>
struct OptimizerCheckpoint : OptimizerCounts {
  Policy policy;
  std::vector<Group> groups;

  void write(torch::serialize::OutputArchive& archive) {
    write_counts(archive);
    checkpoint::Writer write(archive);
    if constexpr (kHasPolicy) {
      write("policy/type", checkpoint::name_of<Policy>());
      write("policy", policy);
    }
    for (size_t k = 0; k < groups.size(); ++k) groups[k].write(write, prefix_of(k));
  }

  /// Reads into the settings of an optimizer with this base and these groups. Errors: another format, base, number of
  /// groups or of parameters; fields that are missing or not valid.
  void read(torch::serialize::InputArchive& archive) {
    const bool is_of_this_method = has_written(archive);
    read_counts(archive, is_of_this_method);
    checkpoint::Reader read(archive);
    if constexpr (kHasPolicy) {
      // Another policy's stays as it is.
      if (checkpoint::written_type(archive, "policy") == checkpoint::name_of<Policy>())
        read("policy", policy);
      else if constexpr (detail::HasForget<Policy>::value)
        policy.forget();
    }
    for (size_t k = 0; k < groups.size(); ++k) {
      if (is_of_this_method)
        groups[k].read(archive, prefix_of(k));
      else
        groups[k].forget();  // state from other steps
      groups[k].validate();
      TORCH_CHECK(kernels::exact::are_equal(groups[k].options.p(), groups.front().options.p()),
                  "steppe: the checkpoint has groups of different norm orders, p = ", groups.front().options.p(),
                  " and p = ", groups[k].options.p(), "; it is damaged");
    }
  }

 private:
  static constexpr bool kHasPolicy = checkpoint::HasFields<Policy, checkpoint::Writer>::value;

  /// Settings of another method are not read: LookSAM's interval, for example, is not SAM's.
  static bool has_written(torch::serialize::InputArchive& archive) {
    return checkpoint::written_type(archive, "policy") == (kHasPolicy ? checkpoint::name_of<Policy>() : "") &&
           Group::has_written(archive, prefix_of(0));
  }
};

/// LibTorch before 2.6 reads the groups' options (the learning rate) and drops them.
void load_base_options(torch::optim::Optimizer& optimizer, torch::serialize::InputArchive& archive);

/// Reads the base optimizer's part by `load()`, and restores it if that throws half-way.
void load_base(torch::optim::Optimizer& optimizer, torch::serialize::InputArchive& archive,
               const std::function<void()>& load);

}  // namespace step
STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/step/optimizer_checkpoint.ipp>
#endif
