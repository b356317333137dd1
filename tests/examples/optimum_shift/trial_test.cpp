// SPDX-License-Identifier: MIT
#include "optimum_shift/trial.hpp"

#include <gtest/gtest.h>
#include <steppe/sharpness/eigenvalues.hpp>

#include <cstring>
#include <limits>
#include <stdexcept>

#include "../sharpness/trained.hpp"
#include "optimum_shift/report.hpp"
#include "optimum_shift/study.hpp"
#include "sharpness/measurement.hpp"

namespace shifting {
namespace {

namespace sharpness = steppe::sharpness;
namespace shift = steppe::shift;
using examples::random_images;
using examples::small_settings;

Settings few() {
  Settings settings;
  settings.batch = 8;
  settings.every = 1;
  settings.images = 32;
  settings.vectors = 2;
  settings.points = 3;
  settings.seed = 3;
  return settings;
}

Way small_batch(bool judged, When when = When::After) { return {"batch", when, false, false, 0.0, judged}; }

std::vector<at::Tensor> weights_of(const cifar::Run& run) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& parameter : run.model()->parameters()) copies.push_back(parameter.detach().clone());
  return copies;
}

bool same_bits(const cifar::Run& run, const std::vector<at::Tensor>& weights) {
  const std::vector<at::Tensor> here = run.model()->parameters();
  for (size_t i = 0; i < here.size(); ++i)
    if (std::memcmp(here[i].data_ptr(), weights[i].data_ptr(), weights[i].nbytes()) != 0) return false;
  return true;
}

TEST(OptimumShiftTrial, MeasuresWhatDirectCallsOfTheHeadersGive) {
  const cifar::Dataset data = random_images();
  cifar::Run run(data, small_settings());
  examples::train_to_the_end(run);
  const State state = measure(run, data, few(), {});
  sharpness::LossSurface surface = flatness::surface_of(run, 32, 32);
  const auto options = sharpness::TraceOptions().vectors(2).seed(3);
  const auto close = [](double a, double b) { EXPECT_NEAR(a, b, 1e-4 * std::abs(b)); };
  close(state.train.loss, surface.loss());
  close(state.test.loss, run.evaluate(data.test).loss);
  close(state.trace.mean, sharpness::trace(sharpness::Hessian(surface), options).mean);
  close(state.top,
        sharpness::eigenvalues(sharpness::Hessian(surface), sharpness::EigenvalueOptions().tolerance(1e-2).seed(3))
            .values.front());
  const auto parameters = run.model()->named_parameters();
  surface.only({parameters["linear.weight"], parameters["linear.bias"]});
  close(state.layer_trace.mean, sharpness::trace(sharpness::Hessian(surface), options).mean);
  close(state.norm, parameters["linear.weight"].norm().item<double>());
}

TEST(OptimumShiftTrial, AShiftOfABatchIsTheLeastNormSolutionOnItsFeatures) {
  const cifar::Dataset data = random_images();
  cifar::Run run(data, small_settings()), twin(data, small_settings());
  Settings settings = few();
  settings.images = 40;
  const Event event = shift_after(run, {"all", When::After, false, true, 0.5, false}, settings, 0);
  // All 40 images by hand: the features are what the final layer is given.
  cifar::ResNet model = twin.model();
  model->eval();
  at::Tensor features;
  auto& layer = *model->named_modules()["linear"]->as<torch::nn::Linear>();
  {
    const shift::InputRecorder recorder({layer.weight},
                                        [&](size_t, const at::Tensor& input) { features = input.clone(); });
    const at::NoGradGuard no_grad;
    model->forward(twin.inputs(data.train.images));
  }
  const shift::ShiftReport expected = shift::optimum_shift(layer, features, shift::ShiftOptions().ridge(0.5));
  EXPECT_EQ(event.report.layers.front().rank, expected.rank);
  EXPECT_NEAR(event.report.layers.front().norm_after, expected.norm_after, 1e-5);
  EXPECT_TRUE(at::allclose(run.model()->named_parameters()["linear.weight"], layer.weight, 1e-4, 1e-5));
  EXPECT_LT(expected.norm_after, expected.norm_before);
}

TEST(OptimumShiftTrial, ARefusedShiftLeavesTheWeightsBitForBit) {
  const cifar::Dataset data = random_images();
  cifar::Run run(data, small_settings());
  examples::train_to_the_end(run);
  const auto before = weights_of(run);
  Settings settings = few();
  settings.batch = 2;
  const Event refused = shift_after(run, small_batch(true), settings, 0);
  EXPECT_FALSE(refused.report.accepted);
  EXPECT_TRUE(refused.report.layers.front().moved);
  EXPECT_GT(refused.report.loss_after, refused.report.loss_before + settings.tolerance);
  EXPECT_TRUE(same_bits(run, before));
  EXPECT_TRUE(shift_after(run, small_batch(false), settings, 0).report.accepted);
  EXPECT_FALSE(same_bits(run, before));
}

TEST(OptimumShiftTrial, AKeptShiftRaisesTheMeasuredLossByNoMoreThanTheTolerance) {
  const cifar::Dataset data = random_images();
  cifar::Run run(data, small_settings());
  Settings settings = few();
  settings.tolerance = 10.0;
  settings.vectors = 2;
  const double before = measure(run, data, settings, {}).train.loss;
  const Event event = shift_after(run, small_batch(true), settings, 0);
  ASSERT_TRUE(event.report.accepted);
  EXPECT_NEAR(event.report.loss_before, before, 1e-5);
  EXPECT_NEAR(event.report.loss_after, measure(run, data, settings, {}).train.loss, 1e-5);
}

TEST(OptimumShiftTrial, TheLastConvolutionIsShiftedWhereAskedFor) {
  const cifar::Dataset data = random_images();
  cifar::Run run(data, small_settings());
  EXPECT_EQ(layer_of(run.model(), false), "linear");
  EXPECT_EQ(layer_of(run.model(), true), "stage3_block1.conv2");
  const auto before = weights_of(run);
  const Event event = shift_after(run, {"conv", When::After, true, false, 0.0, false}, few(), 0);
  EXPECT_EQ(event.report.layers.front().features, 64 * 9);
  EXPECT_LT(event.report.layers.front().rank, 64 * 9);
  const auto names = run.model()->named_parameters();
  for (size_t i = 0; i < names.size(); ++i)
    EXPECT_EQ(names[i].value().equal(before[i]), names[i].key() != "stage3_block1.conv2.weight") << names[i].key();
}

TEST(OptimumShiftTrial, ShiftsDuringTrainingComeEveryKStepsOfItsLatePart) {
  const cifar::Dataset data = random_images();
  cifar::Run run(data, small_settings());  // 2 epochs of 2 batches
  Settings settings = few();
  settings.from = 0.25;
  settings.every = 2;
  int batches = 0;
  const auto events = train_shifting(run, small_batch(false, When::During), settings, 0, [&] { ++batches; });
  EXPECT_EQ(batches, 4);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].step, 3);  // the second step after the first quarter
  EXPECT_TRUE(events[0].report.accepted);
  EXPECT_LE(events[0].report.layers.front().rank, settings.batch);
}

TEST(OptimumShiftTrial, TrainingGoesOnFromTheShiftedWeightsOrAsIfNothingHadBeenTried) {
  const cifar::Dataset data = random_images();
  cifar::Run plain(data, small_settings("sam"));
  examples::train_to_the_end(plain);
  Settings settings = few();
  settings.batch = 2;
  settings.from = 0.0;
  for (const bool judged : {true, false}) {
    cifar::Run run(data, small_settings("sam"));
    const auto events = train_shifting(run, small_batch(judged, When::During), settings, 0, nullptr);
    EXPECT_EQ(events.size(), 4U);
    bool any = false;
    for (const Event& event : events) any = any || event.report.accepted;
    EXPECT_EQ(same_bits(run, weights_of(plain)), !any) << judged;
    EXPECT_TRUE(any || judged);
  }
}

TEST(OptimumShiftTrial, MomentumIsForgottenWhereAskedFor) {
  const cifar::Dataset data = random_images();
  Settings settings = few();
  std::vector<at::Tensor> ends;
  for (const bool forget : {false, true}) {
    cifar::Run run(data, small_settings());
    settings.forget_momentum = forget;
    train_shifting(run, small_batch(false, When::During), settings, 0, nullptr);
    ends.push_back(run.model()->named_parameters()["linear.weight"].detach().clone());
  }
  EXPECT_FALSE(ends[0].equal(ends[1]));
}

TEST(OptimumShiftStudy, EveryWayStartsFromTheSameWeightsAndRefusedOnesEndAsTrained) {
  const cifar::Dataset data = random_images();
  Settings settings = few();
  settings.batch = 2;
  settings.from = 0.0;
  const auto trials =
      trials_of(small_settings(), data, settings, /*with_planes=*/false, [](const std::string&, double) {});
  ASSERT_EQ(trials.size(), ways(settings).size());
  for (const Trial& trial : trials) {
    bool moved = false;
    for (const Event& event : trial.events)
      moved = moved || (event.report.accepted && event.report.layers.front().moved);
    EXPECT_EQ(trial.state.trace.mean == trials[0].state.trace.mean, !moved) << trial.way.label();
    if (trial.way.when != When::After) continue;
    EXPECT_NEAR(trial.events[0].report.loss_before, trials[0].state.train.loss, 1e-5) << trial.way.label();
  }
  // The row of the table is that of the trial.
  const auto rows = table(trials).rows;
  EXPECT_EQ(rows.size(), 2 + trials.size());
  EXPECT_EQ(rows[2][0], "sgd: as trained");
  char text[32];
  std::snprintf(text, sizeof(text), "%.4f", trials[0].state.train.loss);
  EXPECT_EQ(rows[2][4], text);
  EXPECT_NE(conclusions(trials).find("OS, 2 images, judged: no shift was kept"), std::string::npos)
      << conclusions(trials);
}

TEST(OptimumShiftStudy, WhatIsToldCanEndIt) {
  const cifar::Dataset data = random_images();
  EXPECT_THROW(trials_of(small_settings(), data, few(), false,
                         [](const std::string&, double) { throw std::runtime_error("enough"); }),
               std::runtime_error);
}

}  // namespace
}  // namespace shifting
