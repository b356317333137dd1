// SPDX-License-Identifier: MIT
#include "study.hpp"

#include <algorithm>
#include <cstdio>

#include "fit.hpp"
#include "imputation.hpp"
#include "presentation/formatted.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/progress.hpp"
#include "split.hpp"

namespace completion {
namespace {

using presentation::formatted;

/// Share of the observed entries, in the part on held-out ones.
constexpr double kValidationShare = 0.1;

/// The cost of one iteration, in gradients.
double weight_of(const std::string& method) { return method == "sam" ? 2.0 : method == "hooi" ? 4.0 : 1.0; }

class Study {
 public:
  Study(const Arguments& arguments, const at::Tensor& values, const Written& written)
      : arguments_(arguments), values_(values), written_(written), progress_(stdout, work()) {
    results_.methods = arguments.methods;
    for (int64_t k = 0; k < arguments.splits; ++k)
      results_.splits.push_back(arguments.study.seed + static_cast<uint64_t>(k));
  }

  Results run() {
    for (const uint64_t split : results_.splits) {
      if (!compare_on(split)) break;
      written_(results_);
    }
    for (const uint64_t split : results_.splits) {
      if (!results_.finished || arguments_.attempt_iterations == 0) break;
      attempt_on(split);
      written_(results_);
    }
    progress_.clear();
    return std::move(results_);
  }

 private:
  double work() const {
    double work = 0.0;
    for (const std::string& method : arguments_.methods) work += work_of(method, arguments_.training.iterations);
    if (arguments_.attempt_iterations > 0)
      for (const Attempt& attempt : attempts(arguments_.training))
        work += work_of(attempt.settings.method, arguments_.attempt_iterations);
    return work * static_cast<double>(arguments_.splits);
  }

  double work_of(const std::string& method, int64_t iterations) const {
    return weight_of(method) * static_cast<double>(method == "hooi" ? arguments_.sweeps : iterations);
  }

  Problem problem(uint64_t split, double validation) const {
    return {values_, draw_split(values_.sizes().vec(), arguments_.masked, validation, split)};
  }

  /// One completion, with progress; work that it does not need is subtracted.
  Completion complete(const Problem& problem, const TrainingSettings& settings, const std::string& label) {
    const double weight = weight_of(settings.method);
    int64_t made = 0;
    const GoOn go_on = [&](int64_t iteration) {
      ++made;
      progress_.advance(weight, label, formatted("iteration %lld", static_cast<long long>(iteration)));
      return !presentation::interrupted();
    };
    Completion completion =
        settings.method == "hooi"
            ? impute(problem, {settings.ranks, arguments_.sweeps, ImputationSettings().tolerance}, go_on)
            : train(problem, settings, go_on);
    progress_.skip(work_of(settings.method, settings.iterations) - weight * static_cast<double>(made));
    results_.finished = completion.finished;
    return completion;
  }

  bool compare_on(uint64_t split) {
    const Problem problem = this->problem(split, 0.0);
    const at::Tensor means = column_means(values_, problem.split.training);
    results_.baselines.push_back(
        {split, r_squared(values_, means, problem.split.training), r_squared(values_, means, problem.split.held_out)});
    for (const std::string& method : arguments_.methods) {
      TrainingSettings settings = arguments_.training;
      settings.method = method;
      settings.seed = split;
      MethodRun run{method, split, {}, {}, sample_counts(problem.split.training)};
      run.completion = complete(problem, settings, formatted("%s, split %d", method.c_str(), static_cast<int>(split)));
      run.errors = sample_errors(values_, run.completion.fitted, problem.split.held_out);
      const Moment& last = run.completion.last();
      progress_.say(formatted("%s, split %d: after %lld iterations R2 %.4f observed, %.4f held out", method.c_str(),
                              static_cast<int>(split), static_cast<long long>(last.iteration), last.training,
                              last.held_out));
      results_.runs.push_back(std::move(run));
      if (!results_.finished) return false;
    }
    return true;
  }

  void attempt_on(uint64_t split) {
    const Problem problem = this->problem(split, kValidationShare);
    for (Attempt attempt : attempts(arguments_.training)) {
      attempt.settings.iterations = arguments_.attempt_iterations;
      attempt.settings.seed = split;
      const std::string label = formatted("%s, split %d", attempt.label().c_str(), static_cast<int>(split));
      const Completion completion = complete(problem, attempt.settings, label);
      if (!results_.finished) return;
      const Moment &last = completion.last(), &chosen = completion.best_by_validation();
      progress_.say(formatted("%s: R2 held out %.4f at the end, %.4f at iteration %lld", label.c_str(), last.held_out,
                              chosen.held_out, static_cast<long long>(chosen.iteration)));
      results_.tried.push_back({attempt, split, last, chosen});
    }
  }

  const Arguments& arguments_;
  at::Tensor values_;
  const Written& written_;
  presentation::Progress progress_;
  Results results_;
};

}  // namespace

Results carry_out(const Arguments& arguments, const at::Tensor& values, const Written& written) {
  return Study(arguments, values, written).run();
}

}  // namespace completion
