// SPDX-License-Identifier: MIT
#include "method.hpp"

namespace benchmarks {

std::string name_of(Method method) {
  switch (method) {
    case Method::Gcsam:
      return "gcsam";
    case Method::Asam:
      return "asam";
    case Method::ZSharp:
      return "zsharp";
    case Method::ZSharpTies:
      return "zsharp_ties";
    case Method::Sam:
      break;
  }
  return "sam";
}

steppe::Recipe recipe_of(Method method) {
  steppe::Recipe recipe;
  recipe.centralize.on = method == Method::Gcsam;
  recipe.filter.on = method == Method::ZSharp || method == Method::ZSharpTies;
  recipe.filter.level = 0.95;
  recipe.scale.on = method == Method::Asam;
  recipe.scale.convention = steppe::ScaleConvention::Paper;
  recipe.scale.eta = 0.01;
  return recipe;
}

double rho_of(Method method) { return method == Method::Asam ? 0.5 : 0.05; }

double bytes_of(Method method) {
  constexpr double kRead = 4.0, kWrite = 4.0;
  switch (method) {
    case Method::Asam:
      return kRead + kRead + kRead + kRead + kWrite;
    case Method::ZSharp:
    case Method::ZSharpTies:
    case Method::Sam:
    case Method::Gcsam:
      break;
  }
  return kRead + kRead + kRead + kWrite;
}

}  // namespace benchmarks
