// What is computed: one of the optimizers' ascents, on one kind of gradients.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include <steppe/kernels/ops.hpp>

namespace benchmarks {

enum class Method {
  Sam,
  Gcsam,
  Asam,
  ZSharp,
  ZSharpTies  ///< ZSharp where 95 % of the gradient's components are exact zeros
};

std::string name_of(Method method);

steppe::Recipe recipe_of(Method method);

/// The radius of the method's paper.
double rho_of(Method method);

/// Bytes per parameter that an ascent and its restore must read and write at least.
double bytes_of(Method method);

}  // namespace benchmarks
