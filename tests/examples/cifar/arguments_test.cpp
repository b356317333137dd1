// SPDX-License-Identifier: MIT
#include "arguments.hpp"

#include <gtest/gtest.h>

#include <sstream>

#include "../temporary_folder.hpp"

namespace cifar {
namespace {

using examples::TemporaryFolder;
using examples::write_file;

struct Parsed {
  Arguments arguments;
  std::optional<int> code;
  std::string out, error;
};

Parsed parse(std::vector<std::string> words) {
  words.insert(words.begin(), "steppe-cifar");
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  Parsed parsed;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  try {
    parsed.code = parse_arguments(static_cast<int>(argv.size()), argv.data(), parsed.arguments);
  } catch (const std::exception& error) {
    parsed.code = 1;  // as main does
    parsed.error = error.what();
  }
  parsed.out = testing::internal::GetCapturedStdout();
  parsed.error += testing::internal::GetCapturedStderr();
  return parsed;
}

TEST(CifarArguments, TheSampleHasSettingsOfItsOwn) {
  const Arguments arguments = parse({}).arguments;
  EXPECT_TRUE(arguments.sample);
  EXPECT_FALSE(arguments.compare);
  EXPECT_EQ(arguments.optimizers, std::vector<std::string>{"sgd"});
  EXPECT_EQ(arguments.seeds, std::vector<uint64_t>{0});
  EXPECT_EQ(arguments.settings.model, "small");
  EXPECT_DOUBLE_EQ(arguments.settings.label_noise, 0.4);
  EXPECT_FALSE(arguments.settings.augment);
  EXPECT_EQ(arguments.settings.train_size, 0);  // all
  EXPECT_EQ(arguments.settings.epochs, 20);
  EXPECT_DOUBLE_EQ(arguments.run("sam", 0).rho, 0.2);
  EXPECT_DOUBLE_EQ(arguments.run("zsharp", 0).rho, 0.35);
}

TEST(CifarArguments, AFullDataSetIsTrainedInTheUsualWay) {
  const Arguments arguments = parse({"--data", "somewhere"}).arguments;
  EXPECT_FALSE(arguments.sample);
  EXPECT_EQ(arguments.data, "somewhere");
  EXPECT_EQ(arguments.settings.model, "resnet20");
  EXPECT_EQ(arguments.settings.batch_size, 128);
  EXPECT_DOUBLE_EQ(arguments.settings.label_noise, 0.0);
  EXPECT_DOUBLE_EQ(arguments.settings.warm_up, 1.0);
  EXPECT_DOUBLE_EQ(arguments.run("zsharp", 0).rho, 0.1);
  EXPECT_TRUE(arguments.settings.augment);
  EXPECT_FALSE(parse({"--data", "somewhere", "--no-augment"}).arguments.settings.augment);
}

TEST(CifarArguments, CompareHasAListAndTakesOne) {
  EXPECT_EQ(parse({"--compare"}).arguments.optimizers, (std::vector<std::string>{"sgd", "sam", "zsharp", "gcsam"}));
  const Arguments arguments = parse({"--compare", "adam,adam+sam", "--seed", "5", "--seeds", "2"}).arguments;
  EXPECT_TRUE(arguments.compare);
  EXPECT_EQ(arguments.optimizers, (std::vector<std::string>{"adam", "adam+sam"}));
  EXPECT_EQ(arguments.seeds, (std::vector<uint64_t>{5, 6}));
}

TEST(CifarArguments, QuickIsSmallUnlessToldOtherwise) {
  EXPECT_EQ(parse({"--quick"}).arguments.settings.epochs, 2);
  EXPECT_EQ(parse({"--quick"}).arguments.settings.train_size, 256);
  EXPECT_EQ(parse({"--quick", "--epochs", "3"}).arguments.settings.epochs, 3);
}

TEST(CifarArguments, RatesAndRadiiAreForAllOrByName) {
  const Arguments arguments =
      parse({"--compare", "sgd,sam,adam,adam+sam", "--lr", "0.3", "--lr", "adam+sam=1e-4", "--rho", "sam=0.7"})
          .arguments;
  EXPECT_DOUBLE_EQ(arguments.run("sgd", 0).learning_rate, 0.3);
  EXPECT_DOUBLE_EQ(arguments.run("adam+sam", 0).learning_rate, 1e-4);
  EXPECT_DOUBLE_EQ(arguments.run("sam", 0).rho, 0.7);
  EXPECT_NE(arguments.run("adam+sam", 0).rho, 0.7);
  EXPECT_EQ(arguments.run("sam", 9).seed, 9U);
}

TEST(CifarArguments, RatesAndDecayFollowTheBase) {
  const Arguments arguments = parse({"--compare", "sgd,sam,adam,adamw,adagrad"}).arguments;
  EXPECT_DOUBLE_EQ(arguments.run("sam", 0).learning_rate, 0.1);
  EXPECT_DOUBLE_EQ(arguments.run("adam", 0).learning_rate, 0.001);
  EXPECT_DOUBLE_EQ(arguments.run("adagrad", 0).learning_rate, 0.01);
  EXPECT_DOUBLE_EQ(arguments.run("adamw", 0).weight_decay, 0.01);
  EXPECT_DOUBLE_EQ(arguments.run("sgd", 0).weight_decay, 5e-4);
  EXPECT_DOUBLE_EQ(parse({"--optimizer", "adamw", "--weight-decay", "0"}).arguments.run("adamw", 0).weight_decay, 0.0);
}

TEST(CifarArguments, TheCheaperTheMethodTheLargerItsRadius) {
  const Arguments sample = parse({"--compare", "sgd,sam,msam,s2sam,every,looksam,aesam,friendly,adam+msam"}).arguments;
  EXPECT_DOUBLE_EQ(sample.run("msam", 0).rho, 1.5);
  EXPECT_DOUBLE_EQ(sample.run("adam+msam", 0).rho, 1.5);
  EXPECT_DOUBLE_EQ(sample.run("every", 0).rho, 0.8);
  EXPECT_DOUBLE_EQ(sample.run("s2sam", 0).rho, 0.2 * 1.5);
  for (const char* name : {"looksam", "aesam", "friendly"}) EXPECT_DOUBLE_EQ(sample.run(name, 0).rho, 0.2) << name;
  const Arguments full =
      parse({"--data", "somewhere", "--compare", "sam,msam,looksam", "--rho", "looksam=0.3"}).arguments;
  EXPECT_DOUBLE_EQ(full.run("msam", 0).rho, 0.75);
  EXPECT_DOUBLE_EQ(full.run("looksam", 0).rho, 0.3);
}

TEST(CifarArguments, IntervalAndTailShareAreForTheMethodsThatHaveThem) {
  const RunSettings own = parse({"--optimizer", "looksam"}).arguments.run("looksam", 0);
  EXPECT_EQ(own.interval, 0);
  EXPECT_DOUBLE_EQ(own.tail_share, 0.3);
  EXPECT_DOUBLE_EQ(own.planned_gradients(), 1.2);
  const Arguments given = parse({"--compare", "looksam,tail,every", "--interval", "4", "--tail-share", "1"}).arguments;
  EXPECT_EQ(given.run("every", 0).interval, 4);
  EXPECT_DOUBLE_EQ(given.run("every", 0).planned_gradients(), 1.25);
  EXPECT_DOUBLE_EQ(given.run("tail", 0).planned_gradients(), 2.0);
}

TEST(CifarArguments, ABudgetOfGradientsGivesEachMethodItsOwnEpochs) {
  const std::string all = "sgd,sam,tail,looksam,every,aesam,aelooksam,msam,s2sam,adam,adam+friendly";
  const auto epochs = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"--compare", all};
    words.insert(words.end(), more.begin(), more.end());
    const Arguments arguments = parse(words).arguments;
    std::vector<int64_t> of_each;
    for (const std::string& name : arguments.optimizers) of_each.push_back(arguments.run(name, 0).epochs);
    return of_each;
  };
  using Epochs = std::vector<int64_t>;
  EXPECT_EQ(epochs({}), Epochs(11, 20));
  EXPECT_EQ(epochs({"--budget", "steps"}), Epochs(11, 20));
  EXPECT_EQ(epochs({"--budget", "gradients"}), (Epochs{20, 10, 15, 16, 18, 13, 13, 20, 20, 20, 10}));
  // 33 / 1.1 and 39 / 1.3 are whole, also in floating point.
  EXPECT_EQ(epochs({"--budget", "gradients", "--epochs", "33"}), (Epochs{33, 16, 25, 27, 30, 22, 22, 33, 33, 33, 16}));
  EXPECT_EQ(epochs({"--budget", "gradients", "--epochs", "39"})[2], 30);
  EXPECT_EQ(epochs({"--budget", "gradients", "--interval", "4", "--tail-share", "0.6"}),
            (Epochs{20, 10, 12, 16, 16, 13, 13, 20, 20, 20, 10}));
  EXPECT_EQ(epochs({"--budget", "gradients", "--epochs", "1"}), Epochs(11, 1)) << "at least one";
}

TEST(CifarArguments, APlainLoopIsAskedFor) {
  EXPECT_FALSE(parse({}).arguments.run("sam", 0).plain_loop);
  const Arguments arguments = parse({"--plain-loop", "--compare"}).arguments;
  for (const std::string& name : arguments.optimizers) EXPECT_TRUE(arguments.run(name, 0).plain_loop) << name;
  EXPECT_FALSE(parse({"--plain-loop", "--compare", "sgd,das", "--tensorize", "tr"}).code.has_value());
}

TEST(CifarArguments, AnAverageIsAskedFor) {
  EXPECT_EQ(parse({}).arguments.run("sam", 0).average, "none");
  const RunSettings run = parse({"--average", "ema", "--average-decay", "0.99"}).arguments.run("sam", 0);
  EXPECT_EQ(run.average, "ema");
  EXPECT_DOUBLE_EQ(run.average_decay, 0.99);
}

TEST(CifarArguments, CheckpointsLieInTheFolderOfResults) {
  const Arguments one = parse({"--optimizer", "sam", "--out", "o"}).arguments;
  EXPECT_EQ(one.checkpoint_of(one.run("sam", 0)), std::filesystem::path("o/checkpoint.pt"));
  const Arguments several = parse({"--compare", "sgd,lbfgs", "--out", "o"}).arguments;
  EXPECT_EQ(several.checkpoint_of(several.run("sgd", 3)), std::filesystem::path("o/checkpoints/sgd-seed3.pt"));
  EXPECT_TRUE(several.checkpoint_of(several.run("lbfgs", 3)).empty());
  const TemporaryFolder folder;
  write_file(folder / "c.pt", "");
  const Arguments resumed = parse({"--resume", (folder / "c.pt").string()}).arguments;
  EXPECT_TRUE(resumed.resume);
  EXPECT_EQ(resumed.checkpoint, folder / "c.pt");
}

TEST(CifarArguments, HelpIsPrintedAndEndsWithZero) {
  const Parsed help = parse({"--help"});
  EXPECT_EQ(help.code, std::optional<int>(0));
  for (const char* words : {"--compare NAME,NAME", "--label-noise SHARE", "--budget KIND", "stablesam, xsam",
                            "--resume PATH", "(default: cosine)", "Examples:"})
    EXPECT_NE(help.out.find(words), std::string::npos) << words << " in\n" << help.out;
  EXPECT_EQ(help.error, "");
  std::istringstream lines(help.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 120U) << line;
}

struct Mistake {
  std::vector<std::string> words;
  const char* message;
};

TEST(CifarArguments, EveryMistakeIsAMessageAndACodeOtherThanZero) {
  const std::vector<Mistake> mistakes = {
      {{"--bogus"}, "--bogus"},
      {{"--lr", "x"}, "--lr: 'x' must be a number of at least 0"},
      {{"--lr", "1e"}, "--lr: '1e' must be a number"},
      {{"--lr", "sgd=-1"}, "--lr: '-1' must be a number of at least 0"},
      {{"--lr", "nan"}, "--lr: 'nan' must be"},
      {{"--rho", "zsharp=0.1"}, "--rho: 'zsharp' in 'zsharp=0.1' is not among the optimizers of this run"},
      {{"--epochs", "0"}, "--epochs: must be a number from 1 on, not 0"},
      {{"--epochs", "1.5"}, "--epochs = 1.5"},
      {{"--batch-size", "-3"}, "--batch-size: must be a number from 1 on, not -3"},
      {{"--label-noise", "1"}, "--label-noise: must be at least 0 and under 1, not 1"},
      {{"--label-noise", "nan"}, "--label-noise: must be at least 0 and under 1, not nan"},
      {{"--percentile", "1"}, "--percentile: must be at least 0 and under 1, not 1"},
      {{"--seed", "-1"}, "--seed: must be a whole number from 0 on, not -1"},
      {{"--threads", "0"}, "--threads: must be from 1 to 1024, not 0"},
      {{"--model", "vgg"}, "--model: vgg not in {small,resnet20,resnet18}"},
      {{"--schedule", "linear"}, "--schedule: linear not in"},
      {{"--device", "tpu"}, "--device: tpu not in {cpu,cuda}"},
      {{"--seeds", "3"}, "--seeds: goes with --compare"},
      {{"--warm-up", "3", "--epochs", "2"}, "--warm-up: is longer than the training of 2 epochs that sgd has"},
      {{"--warm-up", "3", "--epochs", "4", "--budget", "gradients", "--compare", "sgd,sam"},
       "--warm-up: is longer than the training of 2 epochs that sam has"},
      {{"--budget", "seconds"}, "--budget: seconds not in {steps,gradients}"},
      {{"--augment", "--no-augment"}, "excludes"},
      {{"--compare", "sgd", "--optimizer", "sam"}, "--optimizer excludes --compare"},
      {{"--checkpoint", "a", "--resume", "b"}, "excludes"},
      {{"--plain-loop", "--optimizer", "lbfgs"}, "--plain-loop: 'lbfgs' evaluates the loss several times a step"},
      {{"--plain-loop", "--compare", "sgd,lbfgs+sam"}, "--plain-loop: 'lbfgs+sam' evaluates"},
      {{"--plain-loop", "--optimizer", "msam"},
       "--plain-loop: 'msam' moves the weights before its only pass and needs"},
      {{"--plain-loop", "--compare", "sgd,adam+s2sam"}, "--plain-loop: 'adam+s2sam' moves the weights"},
      {{"--interval", "-1"}, "--interval: must be a whole number from 0 on, not -1"},
      {{"--interval", "1.5"}, "--interval = 1.5"},
      {{"--tail-share", "1.1"}, "--tail-share: must be from 0 to 1, not 1.1"},
      {{"--tail-share", "nan"}, "--tail-share: must be from 0 to 1, not nan"},
      {{"--average", "mean"}, "--average: mean not in {none,ema,swa}"},
      {{"--average-decay", "1"}, "--average-decay: must be at least 0 and under 1, not 1"},
      {{"--compare", "sgd,rmsprop+friendly"}, "friendly goes with sgd, adam, adamw"},
      {{"--compare", "sgd,lbfgs+msam"}, "msam needs a base that evaluates its closure once a step"},
      {{"--optimizer", "foo"}, "there is no optimizer 'foo'"},
      {{"--compare", "sgd,sgd"}, "--compare: 'sgd' is listed twice"},
      {{"--resume", "no-such-file"}, "--resume no-such-file: there is no such file"},
      {{"--compare", "sgd", "--resume", "no-such-folder"}, "--resume no-such-folder: there is no such folder"},
      {{"--optimizer", "lbfgs+sam", "--checkpoint", "c"}, "LibTorch cannot save its lbfgs optimizer"}};
  for (const Mistake& mistake : mistakes) {
    const Parsed parsed = parse(mistake.words);
    ASSERT_TRUE(parsed.code.has_value()) << mistake.message;
    EXPECT_NE(*parsed.code, 0) << mistake.message;
    EXPECT_NE(parsed.error.find(mistake.message), std::string::npos) << mistake.message << " in " << parsed.error;
  }
}

}  // namespace
}  // namespace cifar
