// Every measurement in short, for what must hold for all of them.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/sharpness/ball.hpp>
#include <steppe/sharpness/eigenvalues.hpp>
#include <steppe/sharpness/hessian.hpp>
#include <steppe/sharpness/landscape.hpp>
#include <steppe/sharpness/spectral_density.hpp>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace steppe::sharpness {

inline std::vector<std::pair<std::string, std::function<void(const LossSurface&)>>> every_measurement() {
  return {
      {"loss and gradient", [](const LossSurface& s) { s.loss(), s.gradient(); }},
      {"trace", [](const LossSurface& s) { trace(Hessian(s), TraceOptions().vectors(2)); }},
      {"trace by differences",
       [](const LossSurface& s) { trace(Hessian(s, Derivative::Differences), TraceOptions().vectors(2)); }},
      {"eigenvalues", [](const LossSurface& s) { eigenvalues(Hessian(s), EigenvalueOptions().max_products(3)); }},
      {"spectral density",
       [](const LossSurface& s) { spectral_density(Hessian(s), SpectralDensityOptions().vectors(1).steps(3)); }},
      {"SAM sharpness", [](const LossSurface& s) { sam_sharpness(s); }},
      {"average case", [](const LossSurface& s) { average_case_sharpness(s, 0.1, AverageCaseOptions().draws(2)); }},
      {"worst case", [](const LossSurface& s) { worst_case_sharpness(s, 0.5, WorstCaseOptions().steps(2)); }},
      {"slice", [](const LossSurface& s) { slice(s, filter_normalised_direction(s, 1), SliceOptions().points(3)); }},
      {"plane",
       [](const LossSurface& s) {
         slice(s, filter_normalised_direction(s, 1), filter_normalised_direction(s, 2), SliceOptions().points(2));
       }},
  };
}

}  // namespace steppe::sharpness
