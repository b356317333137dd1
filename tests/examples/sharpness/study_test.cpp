// SPDX-License-Identifier: MIT
#include "sharpness/study.hpp"

#include <gtest/gtest.h>

#include "../../errors.hpp"
#include "../temporary_folder.hpp"
#include "sharpness/report.hpp"
#include "trained.hpp"

namespace flatness {
namespace {

namespace fs = std::filesystem;
using examples::TemporaryFolder;

void write_checkpoint(const cifar::Dataset& data, const cifar::RunSettings& settings, const fs::path& file) {
  cifar::Run run(data, settings);
  examples::train_to_the_end(run);
  run.save(file);
}

TEST(SharpnessStudy, ReadsFromACheckpointWhatItsRunWasAskedFor) {
  const TemporaryFolder folder;
  const cifar::Dataset data = examples::random_images();
  cifar::RunSettings settings = examples::small_settings("sam", 3);
  settings.rho = 0.1 + 0.2;  // more digits than are printed
  write_checkpoint(data, settings, folder / "run.pt");
  const std::vector<Source> sources = sources_of({folder / "run.pt"});
  ASSERT_EQ(sources.size(), 1U);
  EXPECT_EQ(sources[0].run.fields(), settings.fields());
  EXPECT_EQ(sources[0].run.rho, settings.rho);

  cifar::Run trained(data, settings);
  examples::train_to_the_end(trained);
  cifar::Run loaded = run_of(sources[0], data);
  for (size_t i = 0; i < trained.model()->parameters().size(); ++i)
    EXPECT_TRUE(at::equal(trained.model()->parameters()[i], loaded.model()->parameters()[i]));
  EXPECT_EQ(loaded.history().size(), 2U);
}

TEST(SharpnessStudy, TakesTheCheckpointsOfAFolderWithPlainOptimizersFirst) {
  const TemporaryFolder folder;
  const cifar::Dataset data = examples::random_images();
  for (const char* name : {"gcsam", "sam", "sgd"})
    write_checkpoint(data, examples::small_settings(name), folder / (std::string(name) + "-seed0.pt"));
  examples::write_file(folder / "notes.txt", "no checkpoint");
  std::vector<std::string> names;
  for (const Source& source : sources_of({folder.path()})) names.push_back(source.run.optimizer);
  EXPECT_EQ(names, (std::vector<std::string>{"sgd", "gcsam", "sam"}));
}

TEST(SharpnessStudy, RefusesWhatIsNoCheckpoint) {
  const TemporaryFolder folder;
  EXPECT_NE(message_of([&] { sources_of({folder.path()}); }).find("contains no checkpoint"), std::string::npos);
  EXPECT_NE(message_of([&] { sources_of({folder / "none.pt"}); }).find("there is no checkpoint"), std::string::npos);
  examples::write_file(folder / "foreign.pt", "something else");
  EXPECT_NE(message_of([&] { sources_of({folder / "foreign.pt"}); }).find("is not a checkpoint of steppe-cifar"),
            std::string::npos);
  write_checkpoint(examples::random_images(), examples::small_settings(), folder / "cut.pt");
  fs::resize_file(folder / "cut.pt", fs::file_size(folder / "cut.pt") / 2);
  EXPECT_NE(message_of([&] { sources_of({folder / "cut.pt"}); }).find("damaged"), std::string::npos);
}

TEST(SharpnessStudy, RefusesOtherDataThanTheCheckpointsOwn) {
  const TemporaryFolder folder;
  const cifar::Dataset data = examples::random_images();
  write_checkpoint(data, examples::small_settings(), folder / "run.pt");
  const Source source = sources_of({folder / "run.pt"}).front();
  const auto refusal = [&](const cifar::Dataset& other) {
    return message_of([&] { run_of(source, data_of(source, other, at::kCPU)); });
  };
  EXPECT_EQ(refusal(data), "");
  EXPECT_NE(refusal(examples::random_images(1, 30, 20)).find("name its folder with --data"), std::string::npos);
  EXPECT_NE(refusal(examples::random_images(2)).find("on these images it is"), std::string::npos);
  cifar::Dataset other_name = data;
  other_name.name = "CIFAR-100";
  EXPECT_NE(refusal(other_name).find("of CIFAR-10"), std::string::npos);
}

TEST(SharpnessStudy, MeasuresACheckpointInTheMiddleOfAnEpoch) {
  const TemporaryFolder folder;
  const cifar::Dataset data = examples::random_images();
  cifar::Run run(data, examples::small_settings());
  int batches = 0;
  run.train([&] { return ++batches < 3; }, [](const cifar::EpochRecord&) {});
  run.save(folder / "middle.pt");
  EXPECT_EQ(run_of(sources_of({folder / "middle.pt"}).front(), data).history().size(), 1U);
}

}  // namespace
}  // namespace flatness
