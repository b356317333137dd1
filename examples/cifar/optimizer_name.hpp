// The names of optimizers on the command line: a base, a method, or base+method.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

namespace cifar {

/// "sgd", "adam+zsharp", "gcsam" (short for sgd+gcsam).
struct OptimizerName {
  std::string base;
  std::string method;  ///< empty for the base alone

  /// Gradients per step.
  double passes() const { return method.empty() || method == "das" ? 1.0 : 2.0; }

  /// Errors list the names that exist.
  static OptimizerName parse(const std::string& text);
};

const std::vector<std::string>& base_names();
const std::vector<std::string>& method_names();

}  // namespace cifar
