// SPDX-License-Identifier: MIT
#include "dataset.hpp"
#include "../../contains.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <set>

#include "../../errors.hpp"
#include "../../fuzz/damage.hpp"
#include "../temporary_folder.hpp"
#include "augmentation.hpp"

namespace cifar {
namespace {

using examples::TemporaryFolder;
using examples::write_file;

namespace fs = std::filesystem;

constexpr size_t kPixels = 3072;

/// A record whose pixel bytes count up from `first`.
std::string record(const std::string& labels, int first) {
  std::string bytes = labels;
  for (size_t i = 0; i < kPixels; ++i) bytes += static_cast<char>((first + static_cast<int>(i)) % 251);
  return bytes;
}

/// Two images in each of the five files and three for testing.
void write_cifar10(const fs::path& folder) {
  for (int i = 1; i <= 5; ++i)
    write_file(folder / ("data_batch_" + std::to_string(i) + ".bin"),
               record(std::string(1, static_cast<char>(i)), i) + record(std::string(1, '\x09'), 10 * i));
  write_file(folder / "test_batch.bin", record(std::string(1, '\0'), 7) + record("\x01", 8) + record("\x02", 9));
}

void write_cifar100(const fs::path& folder) {
  write_file(folder / "train.bin", record("\x13\x63", 1) + record("\x01\x02", 2));
  write_file(folder / "test.bin", record("\x05\x06", 3));
}

std::string error_of(const fs::path& folder) {
  return message_of([&] { load_dataset(folder); });
}

TEST(CifarDataset, ReadsCifar10InTheOrderOfItsFiles) {
  const TemporaryFolder folder;
  write_cifar10(folder / "cifar-10-batches-bin");
  const Dataset data = load_dataset(folder.path());
  EXPECT_EQ(data.name, "CIFAR-10");
  EXPECT_EQ(data.classes, 10);
  EXPECT_TRUE(at::equal(data.train.labels, at::tensor({1, 9, 2, 9, 3, 9, 4, 9, 5, 9}, at::kLong)));
  EXPECT_TRUE(at::equal(data.test.labels, at::tensor({0, 1, 2}, at::kLong)));
  EXPECT_EQ(data.train.images.sizes(), (std::vector<int64_t>{10, 3, 32, 32}));
  EXPECT_EQ(data.train.images.scalar_type(), at::kByte);
  // Plane by plane, row by row.
  EXPECT_EQ(data.train.images[3][0][0][0].item<int>(), 20);
  EXPECT_EQ(data.train.images[0][0][0][5].item<int>(), 6);
  EXPECT_EQ(data.train.images[0][0][2][0].item<int>(), 65);
  EXPECT_EQ(data.train.images[0][1][0][0].item<int>(), (1 + 1024) % 251);
}

TEST(CifarDataset, ReadsTheFineLabelsOfCifar100) {
  const TemporaryFolder folder;
  write_cifar100(folder / "cifar-100-binary");
  const Dataset data = load_dataset(folder.path());
  EXPECT_EQ(data.name, "CIFAR-100");
  EXPECT_EQ(data.classes, 100);
  EXPECT_TRUE(at::equal(data.train.labels, at::tensor({99, 2}, at::kLong)));
  EXPECT_TRUE(at::equal(data.test.labels, at::tensor({6}, at::kLong)));
  EXPECT_EQ(data.test.images[0][0][0][0].item<int>(), 3);
}

TEST(CifarDataset, IsFoundUnderAnyFolderNameAndWithASlash) {
  const TemporaryFolder folder;
  write_cifar10(folder / "mine");
  EXPECT_EQ(load_dataset(folder / "mine").train.labels.size(0), 10);
  EXPECT_EQ(load_dataset(folder / "mine/").train.labels.size(0), 10);
}

TEST(CifarDataset, TheBundledSampleIsWholeAndKnowsEveryClass) {
  const Dataset data = load_dataset("");
  EXPECT_EQ(data.name, "CIFAR-10");
  for (const Split* split : {&data.train, &data.test}) {
    EXPECT_GE(split->labels.size(0), 1000);
    EXPECT_EQ(std::get<0>(at::_unique(split->labels)).size(0), 10);
    EXPECT_NEAR(split->images.to(at::kDouble).mean().item<double>() / 255.0, 0.473, 0.02);
  }
}

TEST(CifarDataset, AFolderWithoutDataIsAnErrorThatNamesIt) {
  const TemporaryFolder folder;
  EXPECT_TRUE(contains(error_of(folder / "nowhere"), "nowhere does not exist"));
  EXPECT_TRUE(contains(error_of(folder.path()), "neither is nor contains cifar-10-batches-bin or cifar-100-binary"));
}

TEST(CifarDataset, ThePythonVersionAndAPackedArchiveAreRecognised) {
  const TemporaryFolder folder;
  write_file(folder / "a/cifar-10-batches-py/data_batch_1", "pickle");
  write_file(folder / "b/cifar-100-python/train", "pickle");
  write_file(folder / "c/cifar-10-binary.tar.gz", "gzip");
  EXPECT_TRUE(contains(error_of(folder / "a"), "cifar-10-batches-py is the Python version"));
  EXPECT_TRUE(contains(error_of(folder / "a/cifar-10-batches-py"), "is the Python version"));
  EXPECT_TRUE(contains(error_of(folder / "b"), "cifar-100-python is the Python version"));
  EXPECT_TRUE(contains(error_of(folder / "c"), "unpack cifar-10-binary.tar.gz first"));
}

TEST(CifarDataset, BothDataSetsInOneFolderAreAnErrorThatNamesBoth) {
  const TemporaryFolder folder;
  write_cifar10(folder / "cifar-10-batches-bin");
  write_cifar100(folder / "cifar-100-binary");
  const std::string error = error_of(folder.path());
  EXPECT_TRUE(contains(error, (folder / "cifar-10-batches-bin").string() + " or ")) << error;
  EXPECT_TRUE(contains(error, (folder / "cifar-100-binary").string())) << error;
  EXPECT_EQ(load_dataset(folder / "cifar-100-binary").classes, 100);
}

TEST(CifarDataset, AMissingEmptyOrTruncatedFileIsAnErrorThatNamesIt) {
  const TemporaryFolder folder;
  const fs::path inner = folder / "cifar-10-batches-bin", file = inner / "data_batch_4.bin";
  write_cifar10(inner);
  fs::remove(file);
  EXPECT_TRUE(contains(error_of(inner), "cannot open " + file.string()));
  write_file(file, "");
  EXPECT_TRUE(contains(error_of(inner), file.string() + " is empty"));
  write_file(file, record("\x01", 0).substr(0, 3000));
  EXPECT_TRUE(contains(error_of(inner), file.string() + " has 3000 bytes")) << error_of(inner);
  EXPECT_TRUE(contains(error_of(inner), "truncated"));
}

TEST(CifarDataset, ALabelOutOfRangeIsAnErrorThatNamesTheImage) {
  const TemporaryFolder folder;
  write_cifar10(folder.path());
  write_file(folder / "data_batch_2.bin", record("\x09", 0) + record("\x0a", 0));
  const std::string error = error_of(folder.path());
  EXPECT_TRUE(contains(error, "data_batch_2.bin: the label of image 1 is 10, CIFAR-10 has 0 to 9")) << error;
}

TEST(CifarDataset, BothLabelBytesOfCifar100AreChecked) {
  const TemporaryFolder folder;
  write_cifar100(folder.path());
  write_file(folder / "test.bin", record("\x14\x06", 3));
  EXPECT_TRUE(contains(error_of(folder.path()), "the label of image 0 is 20, CIFAR-100 has 0 to 19"));
  write_file(folder / "test.bin", record("\x05\x64", 3));
  EXPECT_TRUE(contains(error_of(folder.path()), "the label of image 0 is 100, CIFAR-100 has 0 to 99"));
}

TEST(CifarDataset, TheFirstImagesAreThoseInFrontAndNoMoreThanThereAre) {
  const TemporaryFolder folder;
  write_cifar10(folder.path());
  const Split train = load_dataset(folder.path()).train;
  const Split first = first_images(train, 3, "--train-size");
  EXPECT_TRUE(at::equal(first.labels, at::tensor({1, 9, 2}, at::kLong)));
  EXPECT_TRUE(at::equal(first.images, train.images.slice(0, 0, 3)));
  EXPECT_EQ(message_of([&] { first_images(train, 11, "--train-size"); }), "--train-size 11: the data set has only 10");
}

TEST(CifarLabelNoise, ChangesExactlyTheShareAndNeverKeepsTheTrueLabel) {
  const at::Tensor labels = at::arange(0, 1000, at::kLong).remainder(10);
  for (const double share : {0.0, 0.001, 0.4, 0.999}) {
    const at::Tensor noisy = with_label_noise(labels, share, 10, 3);
    EXPECT_EQ((noisy != labels).sum().item<int64_t>(), std::llround(share * 1000));
    EXPECT_TRUE(((noisy >= 0) & (noisy < 10)).all().item<bool>());
  }
  EXPECT_EQ(std::get<0>(at::_unique(with_label_noise(at::zeros({900}, at::kLong), 0.9, 10, 1))).size(0), 10);
}

TEST(CifarLabelNoise, IsTheSameByTheSameSeedAndLeavesItsInputAlone) {
  const at::Tensor labels = at::arange(0, 500, at::kLong).remainder(10), before = labels.clone();
  const at::Tensor noisy = with_label_noise(labels, 0.4, 10, 3);
  EXPECT_TRUE(at::equal(noisy, with_label_noise(labels, 0.4, 10, 3)));
  EXPECT_FALSE(at::equal(noisy, with_label_noise(labels, 0.4, 10, 4)));
  EXPECT_TRUE(at::equal(labels, before));
}

at::Generator generator(uint64_t seed) { return at::make_generator<at::CPUGeneratorImpl>(seed); }

TEST(CifarAugmentation, EveryImageIsAShiftedAndPerhapsMirroredCutOfItsPaddedSelf) {
  const at::Tensor images = at::randint(1, 256, {64, 3, 32, 32}, at::kByte);
  at::Generator random = generator(5);
  const at::Tensor cut = crop_and_flip(images, random);
  ASSERT_EQ(cut.sizes(), images.sizes());
  ASSERT_EQ(cut.scalar_type(), at::kByte);
  std::set<int64_t> places;
  int64_t mirrored = 0;
  for (int64_t i = 0; i < images.size(0); ++i) {
    const at::Tensor padded = at::constant_pad_nd(images[i], {4, 4, 4, 4});
    int64_t found = 0;
    for (int64_t top = 0; top <= 8; ++top)
      for (int64_t left = 0; left <= 8; ++left) {
        const at::Tensor candidate = padded.slice(1, top, top + 32).slice(2, left, left + 32);
        const bool straight = at::equal(candidate, cut[i]), flipped = at::equal(candidate.flip({2}), cut[i]);
        if (!straight && !flipped) continue;
        ++found;
        mirrored += flipped ? 1 : 0;
        places.insert(9 * top + left);
      }
    EXPECT_EQ(found, 1) << "image " << i;
  }
  EXPECT_GT(places.size(), 20U);
  EXPECT_GT(mirrored, 16);
  EXPECT_LT(mirrored, 48);
}

TEST(CifarAugmentation, IsTheSameByTheSameSeed) {
  const at::Tensor images = at::randint(0, 256, {16, 3, 32, 32}, at::kByte);
  at::Generator first = generator(1), second = generator(1), third = generator(2);
  const at::Tensor cut = crop_and_flip(images, first);
  EXPECT_TRUE(at::equal(cut, crop_and_flip(images, second)));
  EXPECT_FALSE(at::equal(cut, crop_and_flip(images, third)));
  EXPECT_FALSE(at::equal(cut, crop_and_flip(images, first)));  // the generator has moved on
}

TEST(CifarAugmentation, NormalizesEachChannelByItsOwnNumbers) {
  const at::Tensor images = at::full({2, 3, 32, 32}, 51, at::kByte);  // 0.2
  const at::Tensor out = normalized(images, {0.1, 0.2, 0.4}, {0.5, 1.0, 0.1});
  EXPECT_EQ(out.scalar_type(), at::kFloat);
  EXPECT_NEAR(out[1][0][3][4].item<double>(), 0.2, 1e-6);
  EXPECT_NEAR(out[1][1][3][4].item<double>(), 0.0, 1e-6);
  EXPECT_NEAR(out[1][2][3][4].item<double>(), -2.0, 1e-5);
}

TEST(CifarDataset, AThousandDamagedFilesAreRefusedOrReadAsTheySay) {
  const TemporaryFolder folder;
  write_cifar100(folder.path() / "cifar-100-binary");
  const std::string whole = record("\x13\x63", 1) + record("\x01\x02", 2);
  int taken = 0;
  fuzz::for_each_input(1000, [&](const uint8_t* data, size_t size) {
    const std::string bytes = fuzz::damaged(whole, fuzz::Bytes(data, size));
    write_file(folder.path() / "cifar-100-binary" / "train.bin", bytes);
    Dataset read;
    if (!message_of([&] { read = load_dataset(folder.path()); }).empty()) return;
    ++taken;
    ASSERT_EQ(read.train.labels.numel() * 3074, static_cast<int64_t>(bytes.size()));
    ASSERT_LT(read.train.labels.max().item<int64_t>(), 100);
  });
  EXPECT_GT(taken, 10);
  EXPECT_LT(taken, 900);
}

}  // namespace
}  // namespace cifar
