// SPDX-License-Identifier: MIT
#include "sharpness/measurement.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace flatness {
namespace {

namespace sharpness = steppe::sharpness;

/// Costs in loss evaluations: a gradient is about three, a product with the Hessian about eight.
constexpr double kGradient = 3.0, kProduct = 8.0;
constexpr double kExpectedProducts = 40.0;  ///< for the eigenvalues, beyond two for each

void measure_hessian(const sharpness::LossSurface& surface, const Settings& settings, Measured& measured) {
  const sharpness::Hessian hessian(surface);
  measured.products = std::string(hessian.derivative() == sharpness::Derivative::DoubleBackward
                                      ? "double backward"
                                      : "central differences of the gradient") +
                      " (" + hessian.reason() + ")";
  measured.trace = sharpness::trace(hessian, sharpness::TraceOptions().vectors(settings.vectors).seed(settings.seed));
  measured.top =
      sharpness::eigenvalues(hessian, sharpness::EigenvalueOptions().k(settings.k).tolerance(1e-3).seed(settings.seed));
  measured.top.vectors = at::Tensor();
  measured.density = sharpness::spectral_density(
      hessian,
      sharpness::SpectralDensityOptions().vectors(settings.density_vectors).steps(settings.steps).seed(settings.seed));
}

void measure_ball(const sharpness::LossSurface& surface, const Settings& settings, Measured& measured) {
  int64_t done = 0;
  for (const double rho : settings.rhos) {
    measured.sam.push_back(sharpness::sam_sharpness(surface, rho));
    surface.tell("SAM sharpness", ++done, static_cast<int64_t>(settings.rhos.size()));
  }
  measured.average = sharpness::average_case_sharpness(
      surface, settings.average_rho, sharpness::AverageCaseOptions().draws(settings.draws).seed(settings.seed));
  measured.worst = sharpness::worst_case_sharpness(
      surface, settings.worst_rho, sharpness::WorstCaseOptions().steps(settings.ascent_steps).seed(settings.seed));
}

void measure_landscape(const sharpness::LossSurface& surface, const Settings& settings, bool with_plane,
                       Measured& measured) {
  const at::Tensor first = sharpness::filter_normalised_direction(surface, settings.seed + 1);
  const auto options = sharpness::SliceOptions().radius(settings.radius);
  measured.slice = sharpness::slice(surface, first, sharpness::SliceOptions(options).points(2 * settings.points - 1));
  if (with_plane)
    measured.plane =
        sharpness::slice(surface, first, sharpness::filter_normalised_direction(surface, settings.seed + 2),
                         sharpness::SliceOptions(options).points(settings.points));
}

}  // namespace

sharpness::LossSurface surface_of(cifar::Run& run, int64_t images, int64_t batch_size) {
  const cifar::Split split = run.train_split();
  auto inputs = std::make_shared<std::vector<at::Tensor>>(), labels = std::make_shared<std::vector<at::Tensor>>();
  std::vector<int64_t> samples;
  for (int64_t from = 0; from < images; from += batch_size) {
    const int64_t to = std::min(from + batch_size, images);
    inputs->push_back(run.inputs(split.images.slice(0, from, to)));
    labels->push_back(split.labels.slice(0, from, to));
    samples.push_back(to - from);
  }
  cifar::ResNet model = run.model();
  return sharpness::LossSurface(*model, samples, [model, inputs, labels](size_t i) mutable {
    model->eval();  // whatever mode it was in
    return at::cross_entropy_loss(model->forward((*inputs)[i]), (*labels)[i]);
  });
}

Measured measure(cifar::Run& run, const cifar::Dataset& data, const Settings& settings, bool with_plane,
                 const sharpness::Progress& progress) {
  Measured measured;
  measured.run = run.settings();
  measured.epochs = static_cast<int64_t>(run.history().size());
  const cifar::Split train = run.train_split();
  measured.images = std::min(settings.images, train.labels.size(0));
  measured.train = run.evaluate({train.images.slice(0, 0, measured.images), train.labels.slice(0, 0, measured.images)});
  measured.test = run.evaluate(data.test);
  sharpness::LossSurface surface = surface_of(run, measured.images, settings.batch_size);
  surface.progress(progress);
  measured.parameters = surface.numel();
  measure_hessian(surface, settings, measured);
  measure_ball(surface, settings, measured);
  measure_landscape(surface, settings, with_plane, measured);
  return measured;
}

double work_of_step(const Settings& settings, const std::string& what) {
  if (what == "trace" || what == "eigenvalues" || what == "spectral density") return kProduct;
  if (what == "SAM sharpness") return kGradient + 1.0;
  if (what == "worst-case sharpness")
    return kGradient * static_cast<double>((settings.ascent_steps + 1) * settings.batch_size) /
           static_cast<double>(settings.images);
  return 1.0;
}

double planned_work(const Settings& settings, bool with_plane) {
  const auto products =
      static_cast<double>(settings.vectors + 2 * settings.k + settings.density_vectors * settings.steps) +
      kExpectedProducts;
  const auto losses =
      static_cast<double>(settings.draws + 2 * settings.points + (with_plane ? settings.points * settings.points : 0));
  return kProduct * products + losses + (kGradient + 1.0) * static_cast<double>(settings.rhos.size()) +
         kGradient * static_cast<double>(settings.ascent_steps + 1);
}

}  // namespace flatness
