// SPDX-License-Identifier: MIT
#include "training.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <steppe/base/fused.hpp>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/serialize/archive.h>

#include <cmath>
#include <optional>

#include "../../errors.hpp"
#include "../temporary_folder.hpp"
#include "comparison.hpp"

namespace cifar {
namespace {

using examples::read_file;
using examples::TemporaryFolder;
using examples::write_file;

namespace fs = std::filesystem;
using TrainingRun = Run;  // testing::Test has a Run of its own

constexpr int64_t kTrain = 72, kBatch = 32;  // three batches an epoch, the last one short

const Dataset& tiny_data() {
  static const Dataset data = [] {
    at::manual_seed(1);
    const auto split = [](int64_t count) {
      return Split{at::randint(0, 256, {count, 3, 32, 32}, at::kByte), at::randint(0, 10, {count}, at::kLong)};
    };
    return Dataset{"CIFAR-10", 10, {0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}, split(kTrain), split(20)};
  }();
  return data;
}

RunSettings settings_of(const std::string& optimizer, uint64_t seed = 0) {
  RunSettings run;
  run.optimizer = optimizer;
  run.seed = seed;
  run.train_size = kTrain;
  run.test_size = 20;
  run.label_noise = 0.25;
  run.augment = true;
  run.epochs = 3;
  run.batch_size = kBatch;
  run.warm_up = 0.5;
  run.learning_rate = optimizer.rfind("adam", 0) == 0 ? 0.001 : 0.05;
  return run;
}

/// Trains for `batches` batches at most.
bool train(Run& run, int batches = 1000) {
  return run.train([&] { return --batches > 0; }, [](const EpochRecord&) {});
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

/// Weights, buffers and records, except the times.
void expect_identical(const Run& a, const Run& b) {
  const auto pairs = [](const Run& run) {
    std::vector<at::Tensor> tensors = run.model()->parameters();
    for (const at::Tensor& buffer : run.model()->buffers()) tensors.push_back(buffer);
    return tensors;
  };
  const std::vector<at::Tensor> of_a = pairs(a), of_b = pairs(b);
  for (size_t i = 0; i < of_a.size(); ++i) EXPECT_TRUE(at::equal(of_a[i], of_b[i])) << "tensor " << i;
  ASSERT_EQ(a.history().size(), b.history().size());
  for (size_t i = 0; i < a.history().size(); ++i) {
    const EpochRecord &x = a.history()[i], &y = b.history()[i];
    EXPECT_EQ(x.epoch, y.epoch);
    for (const auto column :
         {&EpochRecord::learning_rate, &EpochRecord::train_loss, &EpochRecord::train_accuracy,
          &EpochRecord::seen_sharpness, &EpochRecord::test_loss, &EpochRecord::test_accuracy, &EpochRecord::gradients})
      EXPECT_TRUE(same(x.*column, y.*column)) << "epoch " << x.epoch << ": " << x.*column << " and " << y.*column;
  }
}

TEST(CifarSchedule, RisesAndThenFallsAsNamed) {
  EXPECT_DOUBLE_EQ(schedule_factor("constant", 0, 4, 100), 0.25);
  EXPECT_DOUBLE_EQ(schedule_factor("constant", 3, 4, 100), 1.0);
  EXPECT_DOUBLE_EQ(schedule_factor("constant", 99, 4, 100), 1.0);
  EXPECT_DOUBLE_EQ(schedule_factor("cosine", 0, 0, 100), 1.0);
  EXPECT_DOUBLE_EQ(schedule_factor("cosine", 4, 4, 104), 1.0);
  EXPECT_NEAR(schedule_factor("cosine", 54, 4, 104), 0.5, 1e-12);
  EXPECT_GT(schedule_factor("cosine", 103, 4, 104), 0.0);
  EXPECT_DOUBLE_EQ(schedule_factor("step", 49, 0, 100), 1.0);
  EXPECT_DOUBLE_EQ(schedule_factor("step", 50, 0, 100), 0.1);
  EXPECT_DOUBLE_EQ(schedule_factor("step", 75, 0, 100), 0.01);
  EXPECT_DOUBLE_EQ(schedule_factor("cosine", 4, 5, 5), 1.0);  // warm-up to the end
  EXPECT_NE(message_of([] { schedule_factor("linear", 0, 0, 1); }), "");
}

TEST(CifarTraining, OptimizersStartFromTheSameWeightsAndOtherSeedsFromOthers) {
  const TrainingRun sgd(tiny_data(), settings_of("sgd")), other(tiny_data(), settings_of("sgd", 1));
  for (const char* name : {"sam", "zsharp", "gcsam", "adam", "adam+asam"})
    expect_identical(sgd, TrainingRun(tiny_data(), settings_of(name)));
  EXPECT_FALSE(at::equal(sgd.model()->parameters().front(), other.model()->parameters().front()));
}

TEST(CifarTraining, TheSameSettingsGiveTheSameBits) {
  for (const char* name : {"sgd", "gcsam"}) {
    TrainingRun first(tiny_data(), settings_of(name)), second(tiny_data(), settings_of(name)),
        other(tiny_data(), settings_of(name, 1));
    EXPECT_TRUE(train(first) && train(second) && train(other));
    expect_identical(first, second);
    EXPECT_NE(first.history().back().train_loss, other.history().back().train_loss);
    EXPECT_TRUE(same(first.measure().sharpness, second.measure().sharpness));
  }
}

TEST(CifarTraining, RecordsEveryEpochAndTestsWhenAskedAndAtTheEnd) {
  RunSettings settings = settings_of("sam");
  settings.evaluate_every = 2;
  TrainingRun run(tiny_data(), settings);
  EXPECT_TRUE(train(run));
  ASSERT_EQ(run.history().size(), 3U);
  EXPECT_TRUE(std::isnan(run.history()[0].test_accuracy));
  EXPECT_TRUE(std::isfinite(run.history()[1].test_accuracy));
  EXPECT_TRUE(std::isfinite(run.history()[2].test_accuracy));
  for (const EpochRecord& epoch : run.history()) {
    EXPECT_TRUE(std::isfinite(epoch.train_loss) && std::isfinite(epoch.seen_sharpness));
    EXPECT_LE(epoch.train_accuracy, 1.0);
  }
  EXPECT_LT(run.history()[0].seconds, run.history()[2].seconds);
}

/// Gradients per step after every epoch of three steps.
std::vector<double> gradients_of(const RunSettings& settings) {
  TrainingRun run(tiny_data(), settings);
  EXPECT_TRUE(train(run));
  std::vector<double> gradients;
  for (const EpochRecord& epoch : run.history()) gradients.push_back(epoch.gradients);
  return gradients;
}

TEST(CifarTraining, CountsTheGradients) {
  using Counts = std::vector<double>;
  for (const char* name : {"sgd", "adam", "msam", "s2sam"})
    EXPECT_EQ(gradients_of(settings_of(name)), (Counts{1.0, 1.0, 1.0})) << name;
  for (const char* name : {"sam", "adam+zsharp", "friendly"})
    EXPECT_EQ(gradients_of(settings_of(name)), (Counts{2.0, 2.0, 2.0})) << name;
  RunSettings every_third = settings_of("looksam");
  every_third.interval = 3;
  EXPECT_EQ(gradients_of(every_third), (Counts{1.0 + 1.0 / 3.0, 1.0 + 1.0 / 3.0, 1.0 + 1.0 / 3.0}));
  EXPECT_EQ(gradients_of(settings_of("looksam")), (Counts{4.0 / 3.0, 8.0 / 6.0, 11.0 / 9.0}));  // steps 0 and 5
  EXPECT_EQ(gradients_of(settings_of("every")), (Counts{4.0 / 3.0, 7.0 / 6.0, 10.0 / 9.0}));
  EXPECT_EQ(gradients_of(settings_of("tail")), (Counts{1.0, 1.0, 12.0 / 9.0}));  // from step round(.7 * 9) = 6
  EXPECT_EQ(gradients_of(settings_of("xsam")), (Counts{2.0, 2.0, 2.0})) << "its search takes losses alone";
  EXPECT_GT(gradients_of(settings_of("lbfgs")).back(), 1.0);
  const double adaptive = gradients_of(settings_of("aesam")).back();
  EXPECT_TRUE(adaptive >= 1.0 && adaptive <= 2.0) << adaptive;
}

TEST(CifarTraining, EveryMethodTrainsTwoStepsOnTheSample) {
  const Dataset sample = cut(load_dataset(""), 64, 20, at::kCPU);
  for (const char* base : {"sgd", "adam", "adamw"})
    for (const char* method : {"tail", "every", "msam", "s2sam", "looksam", "aesam", "aelooksam", "friendly", "vasso",
                               "ssam", "gsam", "wsam", "stablesam", "xsam"}) {
      RunSettings settings = settings_of(std::string(base) + "+" + method);
      SCOPED_TRACE(settings.optimizer);
      settings.train_size = 64;
      settings.epochs = 1;
      settings.rho = 0.2;
      TrainingRun run(sample, settings);
      EXPECT_TRUE(train(run));
      EXPECT_TRUE(std::isfinite(run.history().back().train_loss));
      EXPECT_TRUE(std::isfinite(run.history().back().test_loss));
      EXPECT_TRUE(std::isfinite(run.measure().loss));
    }
}

TEST(CifarTraining, MeasuringLeavesTheModelAsItIs) {
  TrainingRun run(tiny_data(), settings_of("sgd")), untouched(tiny_data(), settings_of("sgd"));
  const Measurement measured = run.measure();
  EXPECT_GT(measured.sharpness, 0.0);
  EXPECT_NEAR(measured.loss, std::log(10.0), 2.0);
  expect_identical(run, untouched);
}

RunSettings with_average(const std::string& kind, RunSettings settings = settings_of("sam")) {
  settings.average = kind;
  settings.average_decay = 0.9;
  settings.epochs = 5;
  return settings;
}

/// Copies of the model's parameters.
std::vector<at::Tensor> weights_of(const Run& run) {
  std::vector<at::Tensor> weights;
  for (const at::Tensor& parameter : run.model()->parameters()) weights.push_back(parameter.detach().clone());
  return weights;
}

TEST(CifarTraining, AnAverageIsEvaluatedAndDoesNotDisturbTheTraining) {
  TrainingRun plain(tiny_data(), with_average("none"));
  EXPECT_TRUE(train(plain));
  for (const char* kind : {"ema", "swa"}) {
    SCOPED_TRACE(kind);
    TrainingRun averaged(tiny_data(), with_average(kind));
    EXPECT_TRUE(train(averaged));
    const std::vector<at::Tensor> expected = weights_of(plain), weights = weights_of(averaged);
    for (size_t i = 0; i < weights.size(); ++i) EXPECT_TRUE(at::equal(weights[i], expected[i])) << i;
    const auto &a = averaged.history(), &b = plain.history();
    for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].train_loss, b[i].train_loss);
    EXPECT_EQ(a[2].test_loss == b[2].test_loss, kind == std::string("swa"));  // it begins after the fourth of five
    EXPECT_NE(a[4].test_loss, b[4].test_loss);
    EXPECT_NE(averaged.measure().loss, plain.measure().loss);
    EXPECT_EQ(averaged.evaluate(tiny_data().test).loss, a[4].test_loss);
  }
}

TEST(CifarTraining, SwaIsTheMeanOfTheLastQuartersEpochsWithItsOwnStatistics) {
  TrainingRun run(tiny_data(), with_average("swa")), by_hand(tiny_data(), with_average("none"));
  std::vector<std::vector<at::Tensor>> last;
  run.train([] { return true; },
            [&](const EpochRecord& epoch) {
              if (epoch.epoch >= 4) last.push_back(weights_of(run));
            });
  ASSERT_EQ(last.size(), 2U);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < last[0].size(); ++i) by_hand.model()->parameters()[i].copy_((last[0][i] + last[1][i]) / 2.0);
  for (const auto& module : by_hand.model()->modules())
    if (auto* norm = module->as<torch::nn::BatchNorm2d>())
      norm->options.momentum() = 1.0;  // one batch holds all images
  by_hand.model().ptr()->train();
  by_hand.model().ptr()->forward(by_hand.inputs(tiny_data().train.images));
  EXPECT_NEAR(by_hand.evaluate(tiny_data().test).loss, run.history().back().test_loss, 1e-5);
}

TEST(CifarTraining, ADivergedTrainingIsAnErrorThatSaysSo) {
  RunSettings settings = settings_of("sgd");
  settings.learning_rate = 1e30;
  TrainingRun run(tiny_data(), settings);
  const std::string error = message_of([&] { train(run); });
  EXPECT_NE(error.find("sgd diverged"), std::string::npos) << error;
}

class CifarResume : public testing::TestWithParam<std::string> {};

TEST_P(CifarResume, GoesOnBitForBit) {
  const TemporaryFolder folder;
  TrainingRun whole(tiny_data(), settings_of(GetParam()));
  EXPECT_TRUE(train(whole));
  for (const int batches : {1, 3, 4, 8}) {  // in an epoch, at its end, in the next, before the last batch
    SCOPED_TRACE(batches);
    TrainingRun stopped(tiny_data(), settings_of(GetParam()));
    EXPECT_FALSE(train(stopped, batches));
    stopped.save(folder / "run.pt");
    TrainingRun resumed(tiny_data(), settings_of(GetParam()));
    at::manual_seed(99);
    resumed.load(folder / "run.pt");
    EXPECT_EQ(resumed.moment().epoch, stopped.moment().epoch);
    EXPECT_EQ(resumed.moment().images, stopped.moment().images);
    EXPECT_TRUE(train(resumed));
    expect_identical(whole, resumed);
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, CifarResume,
                         testing::Values("sgd", "adam+zsharp", "gcsam", "adamw", "rmsprop+sam", "looksam", "tail",
                                         "msam", "adagrad+msam", "s2sam", "friendly", "aelooksam", "xsam"),
                         [](const auto& given) {
                           std::string name = given.param;
                           for (char& c : name)
                             if (c == '+') c = '_';
                           return name;
                         });

TEST(CifarCheckpoint, TakesTheAverageAlong) {
  const TemporaryFolder folder;
  for (const char* kind : {"ema", "swa"}) {
    SCOPED_TRACE(kind);
    TrainingRun whole(tiny_data(), with_average(kind));
    EXPECT_TRUE(train(whole));
    for (const int batches : {4, 13}) {  // 13: in the last epoch, after the first update of swa
      TrainingRun stopped(tiny_data(), with_average(kind)), resumed(tiny_data(), with_average(kind));
      EXPECT_FALSE(train(stopped, batches));
      stopped.save(folder / "run.pt");
      resumed.load(folder / "run.pt");
      EXPECT_TRUE(train(resumed));
      expect_identical(whole, resumed);
      EXPECT_EQ(whole.measure().loss, resumed.measure().loss);
    }
    EXPECT_NE(message_of([&] {
                TrainingRun(tiny_data(), with_average("none")).load(folder / "run.pt");
              }).find(std::string("was written with average ") + kind),
              std::string::npos);
  }
}

RunSettings in_a_plain_loop(RunSettings settings) {
  settings.plain_loop = true;
  return settings;
}

class CifarPlainLoop : public testing::TestWithParam<std::string> {};

TEST_P(CifarPlainLoop, GivesTheBitsOfAClosureAlsoWhereItWasStopped) {
  const TemporaryFolder folder;
  RunSettings settings = settings_of(GetParam());
  if (GetParam() == "das") settings.tensorize = "tr";
  TrainingRun with_closure(tiny_data(), settings), plain(tiny_data(), in_a_plain_loop(settings)),
      stopped(tiny_data(), in_a_plain_loop(settings)), resumed(tiny_data(), in_a_plain_loop(settings));
  EXPECT_TRUE(train(with_closure) && train(plain));
  expect_identical(with_closure, plain);
  EXPECT_TRUE(same(with_closure.measure().sharpness, plain.measure().sharpness));

  EXPECT_FALSE(train(stopped, 4));
  stopped.save(folder / "run.pt");
  at::manual_seed(99);
  resumed.load(folder / "run.pt");
  EXPECT_TRUE(train(resumed));
  expect_identical(with_closure, resumed);
}

INSTANTIATE_TEST_SUITE_P(Optimizers, CifarPlainLoop,
                         testing::Values("sgd", "sam", "zsharp", "gcsam", "adam+asam", "das", "looksam", "tail",
                                         "aesam", "friendly", "xsam"),
                         [](const auto& given) {
                           std::string name = given.param;
                           for (char& c : name)
                             if (c == '+') c = '_';
                           return name;
                         });

/// The error of a run about a checkpoint; empty if it accepts it.
std::string load_error(const fs::path& file, const RunSettings& settings = settings_of("sam")) {
  return message_of([&] { TrainingRun(tiny_data(), settings).load(file); });
}

template <class Base>
bool is_fused(TrainingRun& run) {
  const auto* const optimizer = dynamic_cast<const steppe::Fused<Base>*>(&run.optimizer());
  return optimizer != nullptr && optimizer->enabled();
}

TEST(CifarTraining, AFusedStepIsTheSameUpToRoundingAlsoWhereItWasStopped) {
  for (const char* optimizer : {"sgd", "sam", "adamw+zsharp"}) {
    SCOPED_TRACE(optimizer);
    const TemporaryFolder folder;
    RunSettings settings = settings_of(optimizer), fused = settings;
    fused.fused = true;
    TrainingRun by_class(tiny_data(), settings), whole(tiny_data(), fused), stopped(tiny_data(), fused),
        resumed(tiny_data(), fused);
    EXPECT_FALSE(is_fused<torch::optim::SGD>(by_class) || is_fused<torch::optim::AdamW>(by_class));
    EXPECT_TRUE(is_fused<torch::optim::SGD>(whole) || is_fused<torch::optim::AdamW>(whole));
    EXPECT_TRUE(train(by_class) && train(whole));
    const double loss = by_class.history()[0].train_loss;
    EXPECT_NEAR(whole.history()[0].train_loss, loss, 0.02 * loss);
    EXPECT_FALSE(train(stopped, 4));
    stopped.save(folder / "run.pt");
    resumed.load(folder / "run.pt");
    EXPECT_TRUE(train(resumed));
    expect_identical(whole, resumed);
    EXPECT_NE(load_error(folder / "run.pt", settings).find("fused 1, this run has 0"), std::string::npos);
  }
}

TEST(CifarTraining, APlainLoopWithAnAverageGivesTheBitsOfAClosure) {
  for (const char* kind : {"ema", "swa"}) {
    TrainingRun with_closure(tiny_data(), with_average(kind)), plain(tiny_data(), in_a_plain_loop(with_average(kind)));
    EXPECT_TRUE(train(with_closure) && train(plain));
    expect_identical(with_closure, plain);
  }
}

TEST(CifarTraining, APlainLoopOverAResNet20GivesTheBitsOfAClosure) {
  RunSettings settings = settings_of("zsharp");
  settings.model = "resnet20";
  settings.epochs = 1;
  settings.warm_up = 0.0;
  TrainingRun with_closure(tiny_data(), settings), plain(tiny_data(), in_a_plain_loop(settings));
  EXPECT_TRUE(train(with_closure) && train(plain));
  expect_identical(with_closure, plain);
}

TEST(CifarCheckpoint, OfARunThatHasNotBegunOrIsOverIsOneToo) {
  const TemporaryFolder folder;
  TrainingRun whole(tiny_data(), settings_of("sam")), fresh(tiny_data(), settings_of("sam"));
  fresh.save(folder / "fresh.pt");
  EXPECT_TRUE(train(whole));
  whole.save(folder / "whole.pt");
  for (const char* file : {"fresh.pt", "whole.pt"}) {
    TrainingRun run(tiny_data(), settings_of("sam"));
    run.load(folder / file);
    EXPECT_TRUE(train(run));
    expect_identical(whole, run);
  }
}

TEST(CifarCheckpoint, ForeignAndDamagedFilesAreErrorsThatNameTheFile) {
  const TemporaryFolder folder;
  TrainingRun(tiny_data(), settings_of("sam")).save(folder / "good.pt");
  const std::string good = read_file(folder / "good.pt");
  write_file(folder / "text.pt", "a shopping list");
  write_file(folder / "empty.pt", "");
  write_file(folder / "half.pt", good.substr(0, good.size() / 2));
  torch::serialize::OutputArchive other;
  other.write("weights", at::ones({3}));
  other.save_to((folder / "other.pt").string());
  EXPECT_EQ(load_error(folder / "good.pt"), "");
  for (const char* name : {"text.pt", "empty.pt", "half.pt", "other.pt"}) {
    const std::string error = load_error(folder / name);
    EXPECT_NE(error.find(name + std::string(" is not a checkpoint of steppe-cifar, or it is damaged")),
              std::string::npos)
        << name << ": " << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
  EXPECT_NE(load_error(folder / "none.pt").find("there is no checkpoint"), std::string::npos);
  EXPECT_NE(load_error(folder.path()).find("there is no checkpoint"), std::string::npos);
}

TEST(CifarCheckpoint, TellsWhatItsRunWasAskedFor) {
  const TemporaryFolder folder;
  RunSettings settings = settings_of("adam+sam", 12345678901234);
  settings.schedule = "step";
  settings.label_noise = 1.0 / 3.0;
  settings.rho = 1e-17;
  settings.interval = 7;
  settings.tail_share = 0.1;
  TrainingRun(tiny_data(), settings).save(folder / "run.pt");
  const RunSettings read = read_settings(folder / "run.pt");
  EXPECT_EQ(read.fields(), settings.fields());
  EXPECT_EQ(read.label_noise, settings.label_noise);
  EXPECT_EQ(read.seed, settings.seed);
  EXPECT_EQ(read.interval, 7);
  EXPECT_EQ(read.tail_share, settings.tail_share);
  EXPECT_TRUE(read.augment);
  EXPECT_FALSE(read.plain_loop);
  TrainingRun(tiny_data(), in_a_plain_loop(settings)).save(folder / "plain.pt");
  EXPECT_TRUE(read_settings(folder / "plain.pt").plain_loop);
  write_file(folder / "text.pt", "a shopping list");
  EXPECT_NE(message_of([&] { read_settings(folder / "text.pt"); }).find("is not a checkpoint"), std::string::npos);
  EXPECT_NE(
      message_of([] { RunSettings::read([](const std::string&) { return "7x"; }); }).find("its train-size is '7x'"),
      std::string::npos);
}

TEST(CifarCheckpoint, FromBeforeThePlainLoopAndTheCountOfGradientsIsOneOfARunWithAClosure) {
  const TemporaryFolder folder;
  TrainingRun whole(tiny_data(), settings_of("sam")), stopped(tiny_data(), settings_of("sam")),
      resumed(tiny_data(), settings_of("sam"));
  EXPECT_TRUE(train(whole));
  EXPECT_FALSE(train(stopped, 4));
  stopped.save(folder / "new.pt");
  torch::serialize::InputArchive saved;
  saved.load_from((folder / "new.pt").string());
  torch::serialize::OutputArchive old, model, optimizer;
  for (const std::string& key : saved.keys()) {
    c10::IValue value;
    if (key == "model" || key == "optimizer" || key == "gradients" || key == "settings/plain-loop" ||
        key == "settings/interval" || key == "settings/tail-share" || key == "settings/average" ||
        key == "settings/average-decay" || key == "settings/fused")
      continue;
    saved.read(key, value);
    if (key == "format") value = c10::IValue("steppe-cifar 2");
    if (key == "history") value = value.toTensor().slice(1, 0, -1).contiguous();
    value.isTensor() ? old.write(key, value.toTensor()) : old.write(key, value);
  }
  stopped.model()->save(model);
  stopped.optimizer().save(optimizer);
  old.write("model", model);
  old.write("optimizer", optimizer);
  old.save_to((folder / "old.pt").string());

  EXPECT_EQ(read_settings(folder / "old.pt").fields(), settings_of("sam").fields());
  resumed.load(folder / "old.pt");
  EXPECT_TRUE(train(resumed));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(same(whole.history()[i].train_loss, resumed.history()[i].train_loss)) << i;
  for (const EpochRecord& epoch : resumed.history()) EXPECT_TRUE(std::isnan(epoch.gradients));
  for (size_t i = 0; i < whole.model()->parameters().size(); ++i)
    EXPECT_TRUE(at::equal(whole.model()->parameters()[i], resumed.model()->parameters()[i])) << i;
  EXPECT_NE(load_error(folder / "old.pt", in_a_plain_loop(settings_of("sam"))).find("plain-loop 0, this run has 1"),
            std::string::npos);
  EXPECT_NE(
      message_of([] { RunSettings::read([](const std::string&) { return std::nullopt; }); }).find("it has no data"),
      std::string::npos);
}

TEST(CifarCheckpoint, OfOtherSettingsIsAnErrorThatNamesTheSetting) {
  const TemporaryFolder folder;
  RunSettings settings = settings_of("sam");
  TrainingRun(tiny_data(), settings).save(folder / "run.pt");
  settings.rho = 0.5;
  const std::string error = load_error(folder / "run.pt", settings);
  EXPECT_NE(error.find("run.pt was written with rho 0.05"), std::string::npos) << error;
  EXPECT_NE(error.find("this run has 0.5"), std::string::npos) << error;
  EXPECT_NE(load_error(folder / "run.pt", settings_of("sgd")).find("optimizer sam"), std::string::npos);
  EXPECT_NE(load_error(folder / "run.pt", settings_of("sam", 1)).find("seed 0"), std::string::npos);
}

TEST(CifarCheckpoint, ThatCannotBeWrittenIsAnErrorAndLeavesTheOldOne) {
  const TemporaryFolder folder;
  write_file(folder / "file", "");
  const TrainingRun run(tiny_data(), settings_of("sam"));
  const std::string error = message_of([&] { run.save(folder / "file/run.pt"); });
  EXPECT_NE(error.find("cannot write the checkpoint"), std::string::npos) << error;
  run.save(folder / "run.pt");
  fs::create_directories(folder / "run.pt.part");  // in the way of the new file
  EXPECT_NE(message_of([&] { run.save(folder / "run.pt"); }), "");
  EXPECT_EQ(load_error(folder / "run.pt"), "");
}

TEST(CifarComparison, AnUnwritableFolderIsAnErrorBeforeAnyTraining) {
  const TemporaryFolder folder;
  write_file(folder / "file", "");
  Comparison comparison{{settings_of("sgd")}, folder / "file/results", {folder / "c.pt"}, false};
  EXPECT_NE(message_of([&] { prepare(comparison, tiny_data()); }).find("; choose another place with --out"),
            std::string::npos);
  comparison.out = folder / "results";
  comparison.checkpoints = {folder / "file/c.pt"};
  EXPECT_NE(message_of([&] { prepare(comparison, tiny_data()); }).find("; choose another place with --checkpoint"),
            std::string::npos);
  comparison.checkpoints = {folder / "c.pt"};
  EXPECT_EQ(message_of([&] { prepare(comparison, tiny_data()); }), "");
  EXPECT_TRUE(fs::is_empty(folder / "results"));
}

TEST(CifarComparison, AForeignCheckpointIsAnErrorBeforeAnyTraining) {
  const TemporaryFolder folder;
  write_file(folder / "c.pt", "a shopping list");
  const Comparison comparison{{settings_of("sgd")}, folder / "results", {folder / "c.pt"}, true};
  EXPECT_NE(message_of([&] { prepare(comparison, tiny_data()); }).find("is not a checkpoint"), std::string::npos);
}

TEST(CifarComparison, RunsMayHaveDifferentNumbersOfEpochs) {
  const TemporaryFolder folder;
  RunSettings sgd = settings_of("sgd"), sam = settings_of("sam"), tail = settings_of("tail");
  sgd.epochs = 4;
  sam.epochs = 2;
  Comparison comparison{{sam, sgd, tail}, folder / "results", {"", "", ""}, false};
  prepare(comparison, tiny_data());
  testing::internal::CaptureStdout();
  const Outcome outcome = carry_out(comparison, tiny_data());
  const std::string said = testing::internal::GetCapturedStdout();
  ASSERT_TRUE(outcome.finished);
  EXPECT_EQ(outcome.results[0].history.size(), 2U);
  EXPECT_EQ(outcome.results[1].history.size(), 4U);
  for (const char* words : {"sam, seed 0  epoch 2/2", "sgd, seed 0  epoch 4/4", "tail, seed 0  epoch 3/3"})
    EXPECT_NE(said.find(words), std::string::npos) << said;
  // The learning rate of each falls to the end of its own.
  for (const RunResult& run : outcome.results)
    EXPECT_LT(run.history.back().learning_rate, 0.3 * run.settings.learning_rate) << run.settings.optimizer;
  EXPECT_DOUBLE_EQ(outcome.results[2].history.back().gradients, 12.0 / 9.0);
}

TEST(CifarComparison, CarriesOutEveryRunAndWritesTheResults) {
  const TemporaryFolder folder;
  Comparison comparison{{settings_of("sgd"), settings_of("sam")}, folder / "results", {"", folder / "sam.pt"}, false};
  prepare(comparison, tiny_data());
  testing::internal::CaptureStdout();
  const Outcome outcome = carry_out(comparison, tiny_data());
  const std::string said = testing::internal::GetCapturedStdout();
  EXPECT_TRUE(outcome.finished);
  ASSERT_EQ(outcome.results.size(), 2U);
  EXPECT_EQ(outcome.results[1].settings.optimizer, "sam");
  EXPECT_TRUE(std::isfinite(outcome.results[1].measured.sharpness));
  EXPECT_TRUE(fs::exists(folder / "results/curves.csv") && fs::exists(folder / "results/curves.svg"));
  EXPECT_TRUE(fs::exists(folder / "sam.pt"));
  EXPECT_NE(said.find("sam, seed 0  epoch 3/3"), std::string::npos) << said;
  EXPECT_EQ(said.find('\r'), std::string::npos);  // no terminal, no bar
}

}  // namespace
}  // namespace cifar
