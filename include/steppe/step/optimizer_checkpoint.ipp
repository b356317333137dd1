// An optimizer's counters and its base's state, as checkpoints have them.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>
#include <torch/version.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/step/attached.hpp>
#include <steppe/step/checkpoint.hpp>
#include <steppe/step/optimizer_checkpoint.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

STEPPE_INLINE std::string OptimizerCounts::prefix_of(size_t group) { return "group/" + std::to_string(group) + "/"; }

STEPPE_INLINE void OptimizerCounts::note_participation(const torch::optim::Optimizer& optimizer,
                                                       const Participation& participation) {
  takes_part.clear();
  for (const auto& group : optimizer.param_groups()) {
    const std::vector<at::Tensor>& params = group.params();
    at::Tensor flags = at::empty({static_cast<int64_t>(params.size())}, at::TensorOptions().dtype(at::kBool));
    for (size_t i = 0; i < params.size(); ++i) flags.data_ptr<bool>()[i] = participation.includes(params[i]);
    takes_part.push_back(std::move(flags));
  }
}

STEPPE_INLINE void OptimizerCounts::restore_participation(const torch::optim::Optimizer& optimizer,
                                                          Participation& participation) const {
  std::vector<at::Tensor> left_out;
  for (size_t k = 0; k < takes_part.size(); ++k) {
    const std::vector<at::Tensor>& params = optimizer.param_groups()[k].params();
    for (size_t i = 0; i < params.size(); ++i)
      if (!takes_part[k].data_ptr<bool>()[i]) left_out.push_back(params[i]);
  }
  participation.exclude_exactly(left_out);
}

STEPPE_INLINE void OptimizerCounts::write_counts(torch::serialize::OutputArchive& archive) const {
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
  write("groups", static_cast<int64_t>(takes_part.size()));
  for (size_t k = 0; k < takes_part.size(); ++k) write(prefix_of(k) + "takes_part", takes_part[k]);
}

STEPPE_INLINE void OptimizerCounts::read_counts(torch::serialize::InputArchive& archive, bool of_this_method) {
  checkpoint::Reader read(archive);
  int64_t format = 0, count = 0;
  read("format", format);
  TORCH_CHECK(format == kFormat, "steppe: the checkpoint has format ", format, ", this version reads ", kFormat);
  std::string written_over;
  read("base", written_over);
  TORCH_CHECK(written_over == base, "steppe: the checkpoint was written over the base optimizer ", written_over,
              " and cannot be loaded into ", base);
  read("groups", count);
  TORCH_CHECK(count == static_cast<int64_t>(takes_part.size()), "steppe: the checkpoint has ", count,
              " parameter groups, the optimizer has ", takes_part.size());
  read("step", step);
  TORCH_CHECK(step >= 0, "steppe: the checkpoint counts ", step, " steps; it is damaged");
  read("non_finite_steps", non_finite_steps);
  read("non_finite_clips", non_finite_clips);
  if (of_this_method) {
    read("clipping", clipping);
    read("steps", steps);
    read("ascents", ascents);
  }
  read("perturbed_steps", perturbed_steps);
  if (c10::IValue present; archive.try_read("skipped_steps", present)) read("skipped_steps", skipped_steps);
  TORCH_CHECK(perturbed_steps >= 0 && perturbed_steps <= step && skipped_steps >= 0 && ascents >= 1,
              "steppe: the checkpoint counts ", perturbed_steps, " perturbed steps of ", step, " and ", skipped_steps,
              " skipped ones, and has ", ascents, " ascents; it is damaged");
  for (size_t k = 0; k < takes_part.size(); ++k) {
    at::Tensor flags;
    read(prefix_of(k) + "takes_part", flags);
    TORCH_CHECK(flags.defined() && flags.numel() == takes_part[k].numel() && flags.scalar_type() == at::kBool,
                "steppe: the checkpoint does not fit parameter group ", k, ", which has ", takes_part[k].numel(),
                " parameters");
    if (of_this_method) takes_part[k] = flags.cpu().contiguous();
  }
}

STEPPE_INLINE void load_base_options([[maybe_unused]] torch::optim::Optimizer& optimizer,
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

STEPPE_INLINE void load_base(torch::optim::Optimizer& optimizer, torch::serialize::InputArchive& archive,
                             const std::function<void()>& load) {
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
