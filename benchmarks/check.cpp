// SPDX-License-Identifier: MIT
#include "check.hpp"

#include <ATen/ops/equal.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "engine.hpp"
#include "seconds.hpp"

namespace benchmarks {
namespace {

std::vector<at::Tensor> copies(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> made;
  for (const at::Tensor& tensor : tensors) made.push_back(tensor.detach().clone());
  return made;
}

/// w, w + e by the reference and by a contestant.
struct Values {
  const float* weights;
  const float* expected;
  const float* got;
};

/// Up to the rounding of the sum and of the global norm.
bool agrees(const Values& values, int64_t i, double norm_error) {
  const double expected = values.expected[i], e = expected - static_cast<double>(values.weights[i]);
  const double rounding = std::abs(expected) * static_cast<double>(std::numeric_limits<float>::epsilon());
  return std::abs(static_cast<double>(values.got[i]) - expected) <= rounding + norm_error * std::abs(e);
}

void compare(const Entry& entry, size_t tensor, int64_t size, const Values& values) {
  int64_t different = 0, example = 0;
  for (int64_t i = 0; i < size; ++i) {
    if (agrees(values, i, entry.norm_error)) continue;
    ++different;
    example = i;
  }
  if (different <= entry.may_differ) return;
  std::ostringstream words;
  words.precision(9);
  words << entry.name << " differs from the reference path in " << different << " of the " << size
        << " components of tensor " << tensor << ": component " << example << " is " << values.got[example]
        << " instead of " << values.expected[example] << ", from " << values.weights[example];
  throw std::runtime_error(words.str());
}

void check_placement(const Entry& entry) {
  const auto* engine = dynamic_cast<const Engine*>(entry.contestant.get());
  if (engine != nullptr && !engine->used_the_gradients())
    throw std::runtime_error(entry.name + " did not write into the gradients' memory, which it was allowed to");
}

}  // namespace

std::vector<at::Tensor> reference_weights(Problem& problem, Method method) {
  problem.reset_gradients(method == Method::ZSharpTies);
  Engine reference(problem, method, /*fused=*/false);
  reference.ascend();
  std::vector<at::Tensor> expected = copies(reference.perturbed());
  reference.restore();
  return expected;
}

double check(const Entry& entry, Problem& problem, const std::vector<at::Tensor>& expected) {
  const std::vector<at::Tensor> weights = copies(problem.weights());
  problem.reset_gradients(entry.method == Method::ZSharpTies);
  const double before = seconds_now();
  entry.contestant->ascend();
  double taken = seconds_now() - before;
  check_placement(entry);
  for (size_t i = 0; i < weights.size(); ++i)
    compare(entry, i, weights[i].numel(),
            {weights[i].data_ptr<float>(), expected[i].data_ptr<float>(),
             entry.contestant->perturbed()[i].data_ptr<float>()});
  const double between = seconds_now();
  entry.contestant->restore();
  taken += seconds_now() - between;
  entry.contestant->tidy();
  for (size_t i = 0; i < weights.size(); ++i)
    if (!at::equal(weights[i], problem.weights()[i]))
      throw std::runtime_error(entry.name + " did not restore tensor " + std::to_string(i));
  return taken;
}

}  // namespace benchmarks
