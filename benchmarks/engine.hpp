// The library's own ascent as a contestant.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include <steppe/perturbation.hpp>

#include "contestant.hpp"
#include "problem.hpp"

namespace benchmarks {

/// steppe::Perturbation over all parameters in one group. The gradients' own memory may be used.
class Engine : public Contestant {
 public:
  Engine(const Problem& problem, Method method, bool fused);

  ~Engine() override;

  void ascend() override;
  void restore() override;
  const std::vector<at::Tensor>& perturbed() const override { return groups_.front().params; }

  /// Every tensor went into its gradient's memory.
  bool used_the_gradients() const;

 private:
  std::vector<steppe::AscentGroup> groups_;
  std::shared_ptr<steppe::PerturbationMemory> memory_;
  std::optional<steppe::Perturbation> at_;
};

}  // namespace benchmarks
