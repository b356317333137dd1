// SPDX-License-Identifier: MIT
#include "dataset.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <vector>

#include "presentation/files.hpp"

namespace cifar {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPixels = 3 * 32 * 32;

/// One of the two official layouts.
struct Layout {
  std::string name;
  std::string folder;
  std::vector<std::string> train_files;
  std::string test_file;
  std::vector<int64_t> labels;  ///< classes of each label byte of a record; the last one is used
  std::array<double, 3> mean, deviation;

  int64_t record() const { return static_cast<int64_t>(labels.size()) + kPixels; }
};

const std::vector<Layout>& layouts() {
  static const std::vector<Layout> all = {
      {"CIFAR-10",
       "cifar-10-batches-bin",
       {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
       "test_batch.bin",
       {10},
       {0.4914, 0.4822, 0.4465},
       {0.2470, 0.2435, 0.2616}},
      {"CIFAR-100",
       "cifar-100-binary",
       {"train.bin"},
       "test.bin",
       {20, 100},
       {0.5071, 0.4865, 0.4409},
       {0.2673, 0.2564, 0.2762}},
  };
  return all;
}

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

std::vector<char> bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) fail("cannot open " + file.string() + "; the data set needs this file");
  std::vector<char> bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) fail("cannot read " + file.string());
  return bytes;
}

void check_labels(const at::Tensor& records, const Layout& layout, const fs::path& file) {
  for (size_t k = 0; k < layout.labels.size(); ++k) {
    const at::Tensor wrong = (records.select(1, static_cast<int64_t>(k)) >= layout.labels[k]).nonzero();
    if (wrong.numel() == 0) continue;
    const int64_t record = wrong[0].item<int64_t>();
    const auto label = records[record][static_cast<int64_t>(k)].item<int64_t>();
    fail(file.string() + ": the label of image " + std::to_string(record) + " is " + std::to_string(label) + ", " +
         layout.name + " has 0 to " + std::to_string(layout.labels[k] - 1) + " there; this is not a file of " +
         layout.name + " in its binary version, or it is damaged");
  }
}

Split read_file(const fs::path& file, const Layout& layout) {
  std::vector<char> bytes = bytes_of(file);
  const auto size = static_cast<int64_t>(bytes.size());
  if (size == 0) fail(file.string() + " is empty");
  if (size % layout.record() != 0)
    fail(file.string() + " has " + std::to_string(size) + " bytes, which is not a whole number of " + layout.name +
         " records of " + std::to_string(layout.record()) + " bytes: it is truncated, or something else");
  const at::Tensor records = at::from_blob(bytes.data(), {size / layout.record(), layout.record()}, at::kByte);
  check_labels(records, layout, file);
  const auto label_bytes = static_cast<int64_t>(layout.labels.size());
  return {records.slice(1, label_bytes).clone().view({-1, 3, 32, 32}),
          records.select(1, label_bytes - 1).to(at::kLong)};
}

Split read_files(const fs::path& folder, const std::vector<std::string>& names, const Layout& layout) {
  std::vector<at::Tensor> images, labels;
  for (const std::string& name : names) {
    const Split part = read_file(folder / name, layout);
    images.push_back(part.images);
    labels.push_back(part.labels);
  }
  return {at::cat(images), at::cat(labels)};
}

/// The folder of a layout: `given` itself or below it. Empty if there is none.
fs::path find_layout(const fs::path& given, const Layout& layout) {
  for (const fs::path& folder : {given, given / layout.folder}) {
    if (folder.filename() == layout.folder && fs::is_directory(folder)) return folder;
    if (fs::exists(folder / layout.train_files.front()) && fs::exists(folder / layout.test_file)) return folder;
  }
  return {};
}

[[noreturn]] void fail_without_data(const fs::path& folder) {
  if (!fs::exists(folder)) fail("the data folder " + folder.string() + " does not exist");
  std::string hint;
  for (const char* name : {"cifar-10-batches-py", "cifar-100-python"})
    if (fs::exists(folder / name) || folder.filename() == name)
      hint = "; " + std::string(name) + " is the Python version, the binary version is needed";
  for (const char* name : {"cifar-10-binary.tar.gz", "cifar-100-binary.tar.gz"})
    if (fs::exists(folder / name)) hint = "; unpack " + std::string(name) + " first";
  fail(folder.string() + " neither is nor contains cifar-10-batches-bin or cifar-100-binary" + hint);
}

}  // namespace

Dataset load_dataset(const fs::path& given) {
  if (given.empty()) return load_dataset(presentation::bundled_data("cifar"));
  // A name that ends in a slash has an empty last part.
  const fs::path folder = given.has_filename() ? given : given.parent_path();
  const Layout* found = nullptr;
  fs::path place;
  for (const Layout& layout : layouts()) {
    const fs::path candidate = find_layout(folder, layout);
    if (candidate.empty()) continue;
    if (found != nullptr)
      fail(folder.string() + " contains CIFAR-10 and CIFAR-100; name one of them: " + place.string() + " or " +
           candidate.string());
    found = &layout;
    place = candidate;
  }
  if (found == nullptr) fail_without_data(folder);
  return {found->name,
          found->labels.back(),
          found->mean,
          found->deviation,
          read_files(place, found->train_files, *found),
          read_files(place, {found->test_file}, *found)};
}

Split first_images(const Split& split, int64_t count, const std::string& what) {
  if (count > split.labels.size(0))
    fail(what + " " + std::to_string(count) + ": the data set has only " + std::to_string(split.labels.size(0)));
  return {split.images.slice(0, 0, count), split.labels.slice(0, 0, count)};
}

Dataset cut(const Dataset& data, int64_t train, int64_t test, at::Device device) {
  Dataset part = data;
  if (train > 0) part.train = first_images(data.train, train, "--train-size");
  if (test > 0) part.test = first_images(data.test, test, "--test-size");
  for (at::Tensor* tensor : {&part.train.images, &part.train.labels, &part.test.images, &part.test.labels})
    *tensor = tensor->to(device);
  return part;
}

at::Tensor with_label_noise(const at::Tensor& labels, double share, int64_t classes, uint64_t seed) {
  const int64_t count = labels.size(0);
  const auto wrong = static_cast<int64_t>(std::llround(share * static_cast<double>(count)));
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor which = at::randperm(count, random, at::kLong).slice(0, 0, wrong);
  const at::Tensor shift = at::randint(1, classes, {wrong}, random, at::kLong);
  at::Tensor noisy = labels.clone();
  noisy.index_put_({which}, (labels.index({which}) + shift).remainder(classes));
  return noisy;
}

}  // namespace cifar
