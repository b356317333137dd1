// SPDX-License-Identifier: MIT
#include "sharpness/measurement.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "sharpness/report.hpp"
#include "trained.hpp"

namespace flatness {
namespace {

namespace sharpness = steppe::sharpness;

Settings few() {
  Settings settings;
  settings.images = 30;
  settings.batch_size = 16;  // a short last one
  settings.k = 2;
  settings.vectors = 3;
  settings.density_vectors = 1;
  settings.steps = 8;
  settings.rhos = {0.05, 0.2};
  settings.draws = 3;
  settings.ascent_steps = 2;
  settings.points = 3;
  settings.seed = 5;
  return settings;
}

/// The same surface by hand: the weights, the first images in order, the labels trained on.
sharpness::LossSurface by_hand(cifar::Run& run, const cifar::Dataset& data) {
  cifar::ResNet model = run.model();
  const at::Tensor labels = run.train_split().labels;
  return sharpness::LossSurface(*model, std::vector<int64_t>{16, 14}, [model, labels, &data](size_t i) mutable {
    model->eval();
    const int64_t from = i == 0 ? 0 : 16, to = i == 0 ? 16 : 30;
    const at::Tensor input = (data.train.images.slice(0, from, to).to(at::kFloat) / 255.0 - 0.5) / 0.25;
    return at::cross_entropy_loss(model->forward(input.contiguous(at::MemoryFormat::ChannelsLast)),
                                  labels.slice(0, from, to));
  });
}

TEST(SharpnessMeasurement, EqualsDirectCallsOfTheHeaders) {
  const cifar::Dataset data = examples::random_images();
  cifar::Run run(data, examples::small_settings("sam"));
  examples::train_to_the_end(run);
  const Settings settings = few();
  const Measured measured = measure(run, data, settings, /*with_plane=*/true, {});

  const sharpness::LossSurface surface = by_hand(run, data);
  const sharpness::Hessian hessian(surface);
  const auto close = [](double a, double b) { EXPECT_NEAR(a, b, 1e-4 * std::abs(b) + 1e-7); };
  close(measured.train.loss, surface.loss());
  close(measured.trace.mean, sharpness::trace(hessian, sharpness::TraceOptions().vectors(3).seed(5)).mean);
  const auto top = sharpness::eigenvalues(hessian, sharpness::EigenvalueOptions().k(2).tolerance(1e-3).seed(5));
  for (size_t i = 0; i < 2; ++i) close(measured.top.values[i], top.values[i]);
  const auto density =
      sharpness::spectral_density(hessian, sharpness::SpectralDensityOptions().vectors(1).steps(8).seed(5));
  close(measured.density.moment(2), density.moment(2));
  for (size_t i = 0; i < 2; ++i)
    close(measured.sam[i].sharpness, sharpness::sam_sharpness(surface, settings.rhos[i]).sharpness);
  close(measured.average.mean,
        sharpness::average_case_sharpness(surface, 0.1, sharpness::AverageCaseOptions().draws(3).seed(5)).mean);
  close(measured.worst.mean,
        sharpness::worst_case_sharpness(surface, 0.5, sharpness::WorstCaseOptions().steps(2).seed(5)).mean);
  const at::Tensor first = sharpness::filter_normalised_direction(surface, 6),
                   second = sharpness::filter_normalised_direction(surface, 7);
  close(measured.slice.losses.front(),
        sharpness::slice(surface, first, sharpness::SliceOptions().points(5)).losses.front());
  ASSERT_TRUE(measured.plane.has_value());
  close(measured.plane->losses[0][2],
        sharpness::slice(surface, first, second, sharpness::SliceOptions().points(3)).losses[0][2]);
  // And these are the numbers of the table.
  const auto table = runs_table({measured}, settings);
  EXPECT_NE(table.rows[2][6].find(presentation::cell(std::round(measured.trace.mean * 1e3) / 1e3).substr(0, 4)),
            std::string::npos)
      << table.rows[2][6];
}

TEST(SharpnessMeasurement, CountsWrongLabelsAsTheyWereTrainedOn) {
  const cifar::Dataset data = examples::random_images();
  cifar::Run run(data, examples::small_settings());
  const cifar::Split split = run.train_split();
  EXPECT_EQ((split.labels != data.train.labels).sum().item<int64_t>(), 10);
  sharpness::LossSurface surface = surface_of(run, examples::kTrainImages, 64);
  EXPECT_NEAR(surface.loss(), run.evaluate(split).loss, 1e-5);
  EXPECT_GT(std::abs(surface.loss() - run.evaluate(data.train).loss), 1e-4);
}

TEST(SharpnessMeasurement, LeavesTheRunAsItWasAlsoWhenItIsEnded) {
  const cifar::Dataset data = examples::random_images();
  cifar::Run run(data, examples::small_settings()), twin(data, examples::small_settings());
  int calls = 0;
  EXPECT_THROW(measure(run, data, few(), false,
                       [&](const char*, int64_t, int64_t) {
                         if (++calls == 20) throw std::runtime_error("enough");
                       }),
               std::runtime_error);
  EXPECT_FALSE(measure(run, data, few(), false, {}).plane.has_value());
  examples::train_to_the_end(run);
  examples::train_to_the_end(twin);
  for (size_t i = 0; i < run.model()->parameters().size(); ++i)
    EXPECT_TRUE(at::equal(run.model()->parameters()[i], twin.model()->parameters()[i]));
}

TEST(SharpnessMeasurement, TellsAsMuchWorkAsItPlans) {
  const cifar::Dataset data = examples::random_images();
  cifar::Run run(data, examples::small_settings());
  const Settings settings = few();
  double work = 0.0, products = 0.0;
  measure(run, data, settings, true, [&](const char* what, int64_t, int64_t) {
    work += work_of_step(settings, what);
    products += std::string(what) == "eigenvalues" ? work_of_step(settings, what) : 0.0;
  });
  // The number of products for the eigenvalues is not known beforehand.
  const double expected = planned_work(settings, true) - 8.0 * (2.0 * 2 + 40.0);
  EXPECT_NEAR(work - products, expected, 0.1 * expected);
}

}  // namespace
}  // namespace flatness
