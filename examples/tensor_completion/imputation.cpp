// SPDX-License-Identifier: MIT
#include "imputation.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <tuple>

#include "fit.hpp"
#include "presentation/clock.hpp"
#include "tucker_model.hpp"

namespace completion {
namespace {

/// A Tucker form under HOOI: orthonormal factors, each in turn the best one for the others.
class Hooi {
 public:
  /// As if all ranks were full; the first sweep is the truncated higher-order SVD, one mode after the other.
  Hooi(const at::Tensor& tensor, std::vector<int64_t> ranks) : ranks_(std::move(ranks)) {
    for (int64_t k = 0; k < tensor.dim(); ++k) factors_.push_back(at::eye(tensor.size(k), tensor.options()));
  }

  void sweep(const at::Tensor& tensor) {
    for (int64_t k = 0; k < tensor.dim(); ++k) {
      const at::Tensor unfolded = projected(tensor, k).movedim(k, 0).flatten(1);
      const at::Tensor left = std::get<0>(at::linalg_svd(unfolded, /*full_matrices=*/false));
      const auto mode = static_cast<size_t>(k);
      // More columns than the others' ranks multiply to could not contribute.
      factors_[mode] = left.narrow(1, 0, std::min(ranks_[mode], left.size(1))).contiguous();
    }
    core_ = projected(tensor, tensor.dim());
  }

  at::Tensor full() const {
    at::Tensor t = core_;
    for (int64_t k = t.dim(); k-- > 0;) t = mode_product(t, factors_[static_cast<size_t>(k)], k);
    return t;
  }

 private:
  /// In the coordinates of every factor but that of `mode`.
  at::Tensor projected(const at::Tensor& tensor, int64_t mode) const {
    at::Tensor t = tensor;
    for (int64_t k = 0; k < t.dim(); ++k)
      if (k != mode) t = mode_product(t, factors_[static_cast<size_t>(k)].t(), k);
    return t;
  }

  std::vector<int64_t> ranks_;
  std::vector<at::Tensor> factors_;
  at::Tensor core_;
};

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
  Hooi hooi(problem.values, settings.ranks);
  at::Tensor filled = at::where(missing, column_means(problem.values, problem.split.training), problem.values);
  const std::vector<int64_t> looks = looked_at(settings.sweeps);
  Completion completion;
  const double start = presentation::seconds_now();
  completion.finished = true;
  bool settled = false;
  for (int64_t sweep = 1; sweep <= settings.sweeps && !settled && completion.finished; ++sweep) {
    completion.finished = go_on(sweep);
    hooi.sweep(filled);
    completion.fitted = hooi.full();
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
