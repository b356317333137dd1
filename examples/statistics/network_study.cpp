// SPDX-License-Identifier: MIT
#include "network_study.hpp"

#include <cstdio>
#include <string>

#include "presentation/formatted.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/progress.hpp"
#include "simulation.hpp"

namespace statistics {
namespace {

constexpr uint64_t kLabelStream = 0x6c6162656c;
constexpr int64_t kRecords = 40;

double passes_of(const Method& method) { return method.kind == Method::Kind::GradientDescent ? 1.0 : 2.0; }

int64_t draws_at(double noise, const NetworkStudySettings& settings) { return noise > 0.0 ? settings.draws : 1; }

double work_of(const NetworkStudy& study) {
  double passes = 0.0, draws = 0.0;
  for (const Method& method : study.methods) passes += passes_of(method);
  for (const double noise : study.settings.noise) draws += static_cast<double>(draws_at(noise, study.settings));
  return passes * draws * static_cast<double>(study.settings.seeds * study.settings.iterations);
}

/// All methods of one seed at one level; nothing if the program is interrupted.
std::optional<std::vector<NetworkCurves>> carry_out(const NetworkStudy& study, const TwoClasses& data, double noise,
                                                    uint64_t seed, presentation::Progress& progress) {
  std::vector<NetworkCurves> curves;
  const NetworkSettings settings{study.settings.hidden, study.settings.learning_rate, study.steps};
  for (const Method& method : study.methods) {
    std::vector<Trained> draws;
    for (int64_t draw = 0; draw < draws_at(noise, study.settings); ++draw) {
      const uint64_t stream = (seed * 1000 + static_cast<uint64_t>(draw)) ^ kLabelStream;
      const at::Tensor labels = cifar::with_label_noise(data.train_labels, noise, 2, stream);
      const std::string label = presentation::formatted("network, %g %% flipped, seed %llu, %s", 100.0 * noise,
                                                        static_cast<unsigned long long>(seed), method.name.c_str());
      auto run = trained(data, labels, method, settings, seed, [&] {
        progress.advance(passes_of(method), label);
        return !presentation::interrupted();
      });
      if (!run) return std::nullopt;
      draws.push_back(std::move(*run));
    }
    curves.push_back(curves_of(draws, data.test_labels));
  }
  return curves;
}

}  // namespace

NetworkStudy carry_out(const NetworkStudySettings& settings, const cifar::Dataset& images, uint64_t seed) {
  const TwoClasses data = two_classes(images, settings.classes[0], settings.classes[1]);
  NetworkStudy study;
  study.settings = settings;
  study.data_name = images.name;
  study.train_images = data.train_labels.size(0);
  study.test_images = data.test_labels.size(0);
  study.steps = logarithmic_steps(settings.iterations, kRecords);
  study.methods = {{"GD", Method::Kind::GradientDescent, 0.0},
                   {"SAM", Method::Kind::Sam, settings.rho},
                   {"SAM, un-normalised", Method::Kind::UnnormalisedSam, settings.gradient_rho}};
  study.curves.resize(settings.noise.size());
  presentation::Progress progress(stdout, work_of(study));
  study.finished = true;
  // All levels of one seed, then the next seed: after an interruption the results cover all levels if possible.
  for (int64_t s = 0; s < settings.seeds && study.finished; ++s)
    for (size_t level = 0; level < settings.noise.size() && study.finished; ++level) {
      auto curves = carry_out(study, data, settings.noise[level], seed + static_cast<uint64_t>(s), progress);
      study.finished = curves.has_value();
      if (curves) study.curves[level].push_back(std::move(*curves));
    }
  progress.clear();
  return study;
}

std::vector<double> over_seeds(const NetworkStudy& study, size_t level, size_t method,
                               const std::function<double(const NetworkCurves&)>& value) {
  std::vector<double> values;
  for (const auto& methods : study.curves[level]) values.push_back(value(methods[method]));
  return values;
}

std::vector<double> differences_to_gd(const NetworkStudy& study, size_t level, size_t method,
                                      const std::function<double(const NetworkCurves&)>& value) {
  std::vector<double> values;
  for (const auto& methods : study.curves[level]) values.push_back(value(methods[method]) - value(methods.front()));
  return values;
}

}  // namespace statistics
