// SPDX-License-Identifier: MIT
#include "imputation.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/where.h>
#include <steppe/tensorized/tucker.hpp>

#include <algorithm>

#include "fit.hpp"
#include "presentation/clock.hpp"
#include "tucker_model.hpp"

namespace completion {
namespace {

/// As if all ranks were full; the first sweep reduces them.
steppe::tensorized::TuckerTensor whole(const at::Tensor& tensor) {
  steppe::tensorized::TuckerTensor parts;
  for (int64_t k = 0; k < tensor.dim(); ++k) {
    parts.modes.push_back(k);
    parts.factors.push_back(at::eye(tensor.size(k), tensor.options()));
  }
  return parts;
}

Moment look(const Problem& problem, const at::Tensor& fitted, int64_t sweep) {
  Moment moment;
  moment.iteration = sweep;
  moment.loss = (problem.values - fitted).masked_select(problem.split.training).square().mean().item<double>();
  moment.training = r_squared(problem.values, fitted, problem.split.training);
  moment.validation = r_squared(problem.values, fitted, problem.split.validation);
  moment.held_out = r_squared(problem.values, fitted, problem.split.held_out);
  return moment;
}

}  // namespace

Completion impute(const Problem& problem, const ImputationSettings& settings, const GoOn& go_on) {
  check_ranks(problem.values.sizes().vec(), settings.ranks, "HOOI");
  const at::NoGradGuard no_grad;
  const at::Tensor missing = problem.split.training.logical_not();
  steppe::tensorized::TuckerTensor parts = whole(problem.values);
  at::Tensor filled = at::where(missing, column_means(problem.values, problem.split.training), problem.values);
  const std::vector<int64_t> looks = looked_at(settings.sweeps);
  Completion completion;
  const double start = presentation::seconds_now();
  completion.finished = true;
  bool settled = false;
  for (int64_t sweep = 1; sweep <= settings.sweeps && !settled && completion.finished; ++sweep) {
    completion.finished = go_on(sweep);
    steppe::tensorized::hooi_sweep(filled, settings.ranks, parts);
    completion.fitted = parts.full();
    const at::Tensor refilled = at::where(missing, completion.fitted, problem.values);
    settled = (refilled - filled).norm().item<double>() <=
              settings.tolerance * filled.masked_select(missing).norm().item<double>();
    filled = refilled;
    if (settled || sweep == settings.sweeps || !completion.finished ||
        std::binary_search(looks.begin(), looks.end(), sweep))
      completion.moments.push_back(look(problem, completion.fitted, sweep));
  }
  completion.seconds = presentation::seconds_now() - start;
  return completion;
}

}  // namespace completion
