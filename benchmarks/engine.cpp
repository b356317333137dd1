// SPDX-License-Identifier: MIT
#include "engine.hpp"

#include <algorithm>

namespace benchmarks {

Engine::Engine(const Problem& problem, Method method, bool fused)
    : groups_(1), memory_(std::make_shared<steppe::PerturbationMemory>()) {
  steppe::AscentGroup& group = groups_.front();
  group.params = problem.weights();
  group.gradients = problem.gradients();
  group.spare.assign(group.params.size(), true);
  group.direction.recipe = recipe_of(method);
  group.rho = rho_of(method);
  group.fused = fused;
}

// Not in the header: GCC 12 reports uninitialized values in an optional whose destructor it inlines.
Engine::~Engine() = default;

void Engine::ascend() { at_.emplace(groups_, memory_); }

void Engine::restore() {
  at_->restore();
  at_.reset();
}

bool Engine::used_the_gradients() const {
  const std::vector<at::Tensor>& params = groups_.front().params;
  return std::all_of(params.begin(), params.end(),
                     [&](const at::Tensor& param) { return memory_->placement(param) == steppe::Placement::Gradient; });
}

}  // namespace benchmarks
