// Run::save, Run::load and read_settings().
// SPDX-License-Identifier: MIT
#include <ATen/ATen.h>
#include <torch/serialize/archive.h>

#include <optional>
#include <stdexcept>
#include <system_error>

#include "training.hpp"

namespace cifar {
namespace {

namespace fs = std::filesystem;
using torch::serialize::InputArchive;
using torch::serialize::OutputArchive;

constexpr char kFormat[] = "steppe-cifar 3";
constexpr char kWithoutGradients[] = "steppe-cifar 2";  // read as well; how many there were is unknown

constexpr double EpochRecord::*kColumns[] = {&EpochRecord::learning_rate,  &EpochRecord::train_loss,
                                             &EpochRecord::train_accuracy, &EpochRecord::seen_sharpness,
                                             &EpochRecord::test_loss,      &EpochRecord::test_accuracy,
                                             &EpochRecord::seconds,        &EpochRecord::gradients};
constexpr auto kColumnCount = static_cast<int64_t>(std::size(kColumns));

at::Tensor table_of(const std::vector<EpochRecord>& history) {
  at::Tensor table = at::empty({static_cast<int64_t>(history.size()), kColumnCount}, at::kDouble);
  auto cell = table.data_ptr<double>();
  for (const EpochRecord& record : history)
    for (const auto column : kColumns) *cell++ = record.*column;
  return table;
}

std::vector<EpochRecord> history_of(const at::Tensor& table) {
  const int64_t columns = table.size(1);  // the last one was added later
  if (columns != kColumnCount && columns != kColumnCount - 1)
    throw std::runtime_error("its history has " + std::to_string(columns) + " columns");
  std::vector<EpochRecord> history(static_cast<size_t>(table.size(0)));
  auto cell = table.data_ptr<double>();
  for (size_t i = 0; i < history.size(); ++i) {
    history[i].epoch = static_cast<int64_t>(i) + 1;
    for (int64_t k = 0; k < columns; ++k) history[i].*kColumns[k] = *cell++;
  }
  return history;
}

std::optional<std::string> text_at(InputArchive& archive, const std::string& key) {
  c10::IValue value;
  if (!archive.try_read(key, value)) return std::nullopt;
  return value.toStringRef();
}

at::Tensor tensor_at(InputArchive& archive, const std::string& key) {
  c10::IValue value;
  archive.read(key, value);
  return value.toTensor();
}

InputArchive archive_at(InputArchive& archive, const std::string& key) {
  InputArchive inner;
  archive.read(key, inner);
  return inner;
}

/// The first line of LibTorch's message; the rest is a stack trace.
std::string reason(const std::exception& error) {
  const std::string what = error.what();
  return what.substr(0, what.find('\n'));
}

/// Opens a checkpoint of this program and reads the settings of its run.
RunSettings opened(InputArchive& archive, const fs::path& file, at::Device device) {
  if (!fs::is_regular_file(file)) throw std::runtime_error("there is no checkpoint " + file.string());
  try {
    archive.load_from(file.string(), device);
    const std::optional<std::string> format = text_at(archive, "format");
    if (format != kFormat && format != kWithoutGradients) throw std::runtime_error("it has another format");
    return RunSettings::read([&](const std::string& name) { return text_at(archive, "settings/" + name); });
  } catch (const std::exception& error) {
    throw std::runtime_error(file.string() +
                             " is not a checkpoint of steppe-cifar, or it is damaged: " + reason(error));
  }
}

}  // namespace

void Run::save(const fs::path& file) const {
  OutputArchive archive, model, optimizer;
  model_->save(model);
  optimizer_.optimizer->save(optimizer);
  archive.write("format", c10::IValue(kFormat));
  for (const auto& [name, value] : settings_.fields()) archive.write("settings/" + name, c10::IValue(value));
  archive.write("model", model);
  archive.write("optimizer", optimizer);
  if (average_) {
    OutputArchive average;
    average_->save(average);
    archive.write("average", average);
  }
  archive.write("random", random_.get_state());
  archive.write("order", order_);
  archive.write("position", at::tensor({epoch_, batch_}, at::kLong));
  archive.write("sums", sums_);
  archive.write("seconds", at::tensor({seconds_}, at::kDouble));
  archive.write("gradients", at::tensor({gradients_}, at::kDouble));
  archive.write("history", table_of(history_));

  // Written under another name, then renamed: the old checkpoint is good until the new one is.
  const fs::path part = file.string() + ".part";
  std::error_code failed;
  try {
    archive.save_to(part.string());
    fs::rename(part, file);
  } catch (const std::exception& error) {
    fs::remove(part, failed);
    throw std::runtime_error("cannot write the checkpoint " + file.string() + ": " + reason(error));
  }
}

RunSettings read_settings(const fs::path& file) {
  InputArchive archive;
  return opened(archive, file, at::kCPU);
}

void Run::load(const fs::path& file) {
  InputArchive archive;
  const auto saved = opened(archive, file, labels_.device()).fields();
  const auto here = settings_.fields();
  for (size_t i = 0; i < here.size(); ++i)
    if (saved[i] != here[i])
      throw std::runtime_error(file.string() + " was written with " + saved[i].first + " " + saved[i].second +
                               ", this run has " + here[i].second + "; resume with the options it was started with");
  try {
    InputArchive model = archive_at(archive, "model"), optimizer = archive_at(archive, "optimizer");
    model_->load(model);
    optimizer_.optimizer->load(optimizer);
    if (average_) {
      InputArchive average = archive_at(archive, "average");
      average_->load(average);
    }
    random_.set_state(tensor_at(archive, "random").cpu());
    order_ = tensor_at(archive, "order").cpu();
    const at::Tensor position = tensor_at(archive, "position").cpu();
    epoch_ = position[0].item<int64_t>();
    batch_ = position[1].item<int64_t>();
    sums_ = tensor_at(archive, "sums");
    seconds_ = tensor_at(archive, "seconds").item<double>();
    const bool is_older = text_at(archive, "format") == kWithoutGradients;
    gradients_ = is_older ? kUnknown : tensor_at(archive, "gradients").item<double>();
    history_ = history_of(tensor_at(archive, "history").cpu());
  } catch (const std::exception& error) {
    throw std::runtime_error("the checkpoint " + file.string() + " is damaged: " + reason(error));
  }
}

}  // namespace cifar
