// What a sharpness-aware optimizer writes beside its base's state, and how both are read back.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>
#include <torch/version.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/direction.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/schedule.hpp>
#include <steppe/step/checkpoint.hpp>
#include <steppe/step/gradient_clipping.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Counters, schedules, the policy, the settings of every group (`Group`: GroupSettings), and which parameters are
/// perturbed.
template <class Group, class Policy>
struct OptimizerCheckpoint {
  std::string base;  ///< the base optimizer's type
  int64_t step = 0;
  int64_t non_finite_steps = 0;
  int64_t non_finite_clips = 0;
  GradientClipping clipping;
  schedule::Steps steps;
  int64_t perturbed_steps = 0;
  int64_t skipped_steps = 0;
  int64_t ascents = 1;
  Policy policy;
  std::vector<Group> groups;
  std::vector<at::Tensor> takes_part;  ///< of each group, a flag for each parameter

  void write(torch::serialize::OutputArchive& archive) {
    checkpoint::Writer write(archive);
    write("format", kFormat);
    write("base", base);
    write("step", step);
    write("non_finite_steps", non_finite_steps);
    write("non_finite_clips", non_finite_clips);
    write("clipping", clipping);
    write("steps", steps);
    write("perturbed_steps", perturbed_steps);
    write("skipped_steps", skipped_steps);
    write("ascents", ascents);
    if constexpr (checkpoint::HasFields<Policy, checkpoint::Writer>::value) {
      write("policy/type", checkpoint::name_of<Policy>());
      write("policy", policy);
    }
    write("groups", static_cast<int64_t>(groups.size()));
    for (size_t k = 0; k < groups.size(); ++k) {
      groups[k].write(write, prefix_of(k));
      write(prefix_of(k) + "takes_part", takes_part[k]);
    }
  }

  /// Into what an optimizer of this base and these groups is set to. Errors: another format, base, number of groups or
  /// of parameters; fields that are missing or not valid.
  void read(torch::serialize::InputArchive& archive) {
    checkpoint::Reader read(archive);
    int64_t format = 0, count = 0;
    read("format", format);
    TORCH_CHECK(format == kFormat, "steppe: the checkpoint has format ", format, ", this version reads ", kFormat);
    std::string written_over;
    read("base", written_over);
    TORCH_CHECK(written_over == base, "steppe: the checkpoint was written over the base optimizer ", written_over,
                " and cannot be loaded into ", base);
    read("groups", count);
    TORCH_CHECK(count == static_cast<int64_t>(groups.size()), "steppe: the checkpoint has ", count,
                " parameter groups, the optimizer has ", groups.size());
    read("step", step);
    TORCH_CHECK(step >= 0, "steppe: the checkpoint counts ", step, " steps; it is damaged");
    read("non_finite_steps", non_finite_steps);
    read("non_finite_clips", non_finite_clips);
    const bool is_of_this_method = has_written(archive);
    if (is_of_this_method) {
      read("clipping", clipping);
      read("steps", steps);
      read("ascents", ascents);
    }
    read("perturbed_steps", perturbed_steps);
    if (c10::IValue present; archive.try_read("skipped_steps", present)) read("skipped_steps", skipped_steps);
    TORCH_CHECK(perturbed_steps >= 0 && perturbed_steps <= step && skipped_steps >= 0 && ascents >= 1,
                "steppe: the checkpoint counts ", perturbed_steps, " perturbed steps of ", step, " and ", skipped_steps,
                " skipped ones, and has ", ascents, " ascents; it is damaged");
    if constexpr (checkpoint::HasFields<Policy, checkpoint::Writer>::value) {
      c10::IValue written;  // another policy's stays as it is
      if (archive.try_read("policy/type", written) && written.isString() &&
          written.toStringRef() == checkpoint::name_of<Policy>())
        read("policy", policy);
      else if constexpr (detail::HasForget<Policy>::value)
        policy.forget();
    }
    for (size_t k = 0; k < groups.size(); ++k) {
      if (is_of_this_method)
        groups[k].read(archive, prefix_of(k));
      else
        groups[k].forget();  // it was of other steps
      groups[k].validate();
      TORCH_CHECK(kernels::exact::are_equal(groups[k].options.p(), groups.front().options.p()),
                  "steppe: the checkpoint has groups of different norm orders, p = ", groups.front().options.p(),
                  " and p = ", groups[k].options.p(), "; it is damaged");
      at::Tensor flags;
      read(prefix_of(k) + "takes_part", flags);
      TORCH_CHECK(flags.defined() && flags.numel() == takes_part[k].numel() && flags.scalar_type() == at::kBool,
                  "steppe: the checkpoint does not fit parameter group ", k, ", which has ", takes_part[k].numel(),
                  " parameters");
      if (is_of_this_method) takes_part[k] = flags.cpu().contiguous();
    }
  }

 private:
  /// LookSAM's interval, for one, is not SAM's: another method's settings stay there.
  static bool has_written(torch::serialize::InputArchive& archive) {
    c10::IValue written;
    const bool has_policy = archive.try_read("policy/type", written) && written.isString();
    if constexpr (checkpoint::HasFields<Policy, checkpoint::Writer>::value) {
      if (!has_policy || written.toStringRef() != checkpoint::name_of<Policy>()) return false;
    } else if (has_policy) {
      return false;
    }
    return Group::has_written(archive, prefix_of(0));
  }

  static constexpr int64_t kFormat = 2;
  static std::string prefix_of(size_t group) { return "group/" + std::to_string(group) + "/"; }
};

/// LibTorch before 2.6 reads the groups' options (the learning rate) and drops them.
inline void load_base_options([[maybe_unused]] torch::optim::Optimizer& optimizer,
                              [[maybe_unused]] torch::serialize::InputArchive& archive) {
#if TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 6)
  torch::serialize::InputArchive groups;
  if (!archive.try_read("param_groups", groups)) return;
  for (size_t k = 0; k < optimizer.param_groups().size(); ++k) {
    torch::serialize::InputArchive group, options;
    if (!groups.try_read("param_groups/" + std::to_string(k), group) || !group.try_read("options", options)) continue;
    optimizer.param_groups()[k].options().serialize(options);
  }
#endif
}

/// Reads the base optimizer's part by `load()`, and undoes it if that throws half-way.
template <class Load>
void load_base(torch::optim::Optimizer& optimizer, torch::serialize::InputArchive& archive, Load&& load) {
  auto& kept = optimizer.state();
  std::decay_t<decltype(kept)> state;
  for (const auto& item : kept) state[item.first] = item.second->clone();
  std::vector<torch::optim::OptimizerParamGroup> groups = optimizer.param_groups();
  try {
    load();
    load_base_options(optimizer, archive);
  } catch (...) {
    kept = std::move(state);
    optimizer.param_groups().swap(groups);
    throw;
  }
}

}  // namespace step
STEPPE_NAMESPACE_END
