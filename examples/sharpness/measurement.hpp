// How flat the loss is around the weights of one run: every number that the page shows.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/sharpness/ball.hpp>
#include <steppe/sharpness/eigenvalues.hpp>
#include <steppe/sharpness/landscape.hpp>
#include <steppe/sharpness/spectral_density.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cifar/training.hpp"

namespace flatness {

/// What is measured, and how accurately.
struct Settings {
  int64_t images = 512, batch_size = 128;  ///< the first training images, with the labels trained on
  int64_t k = 5;                           ///< largest eigenvalues
  int64_t vectors = 30;                    ///< of the trace
  int64_t density_vectors = 2, steps = 50;
  std::vector<double> rhos = {0.05, 0.1, 0.2};  ///< of SAM sharpness
  double average_rho = 0.1, worst_rho = 0.5;
  int64_t draws = 30, ascent_steps = 20;
  double radius = 1.0;
  int64_t points = 15;  ///< of the plane along each direction; the slice has twice as many, less one
  uint64_t seed = 0;    ///< the same random vectors and directions for all runs
};

/// One run, measured.
struct Measured {
  cifar::RunSettings run;
  std::string source;  ///< its checkpoint; empty if it was trained here
  int64_t epochs = 0;  ///< finished ones
  int64_t images = 0, parameters = 0;
  cifar::Evaluation train{}, test{};  ///< of the measured images, and of all test images
  std::string products;               ///< how products with the Hessian were taken, and why
  steppe::sharpness::Estimate trace;
  steppe::sharpness::Eigenpairs top;  ///< without their vectors
  steppe::sharpness::SpectralDensity density;
  std::vector<steppe::sharpness::SamSharpness> sam;  ///< one for each of Settings::rhos
  steppe::sharpness::Estimate average, worst;
  steppe::sharpness::Slice slice;
  std::optional<steppe::sharpness::Plane> plane;
};

/// The loss of a run on its first `images` training images in evaluation mode, in batches.
steppe::sharpness::LossSurface surface_of(cifar::Run& run, int64_t images, int64_t batch_size);

/// Measures everything but the source; the run is unchanged afterwards. `progress` may throw to end it.
Measured measure(cifar::Run& run, const cifar::Dataset& data, const Settings& settings, bool with_plane,
                 const steppe::sharpness::Progress& progress);

/// The approximate cost in loss evaluations, for a progress bar: of a whole measurement, or per call of `progress`.
double planned_work(const Settings& settings, bool with_plane);
double work_of_step(const Settings& settings, const std::string& what);

}  // namespace flatness
