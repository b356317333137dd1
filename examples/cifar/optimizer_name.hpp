// The names of optimizers on the command line: a base, a method, or base+method.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cifar {

/// "sgd", "adam+zsharp", "gcsam" (short for sgd+gcsam).
struct OptimizerName {
  std::string base;
  std::string method;  ///< empty for the base alone

  /// Steps from one perturbed step to the next: `asked`, or the method's own where that is 0; 1 for those without one.
  int64_t interval(int64_t asked) const;
  /// Gradient evaluations per step, as planned. For aesam and aelooksam, which decide as they go, half of the steps.
  double gradients(int64_t asked_interval, double tail_share) const;
  /// The only pass of a step is made at perturbed weights, which a loop without a closure cannot do.
  bool perturbs_before_its_pass() const { return method == "msam" || method == "s2sam"; }
  /// Errors: a method that this base does not have.
  void check() const;

  /// Errors list the names that exist, or the bases of the method.
  static OptimizerName parse(const std::string& text);
};

const std::vector<std::string>& base_names();
const std::vector<std::string>& method_names();
/// The bases that have a method.
const std::vector<std::string>& bases_of(const std::string& method);

}  // namespace cifar
