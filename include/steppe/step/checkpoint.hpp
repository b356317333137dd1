// Writes and reads options by name, so that each class lists its fields once.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/serialize/archive.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace steppe::checkpoint {

class Writer;

template <class T, class Fields, class = void>
struct HasFields : std::false_type {};
template <class T, class Fields>
struct HasFields<T, Fields, std::void_t<decltype(std::declval<T&>().fields(std::declval<Fields&>()))>>
    : std::true_type {};

/// Writes numbers, flags, enumerations, strings, tensors, lists of tensors, and classes that have
/// `template <class Fields> void fields(Fields& field)`.
class Writer {
 public:
  explicit Writer(torch::serialize::OutputArchive& archive, std::string prefix = "")
      : archive_(archive), prefix_(std::move(prefix)) {}

  template <class T>
  void operator()(const std::string& name, const T& value) {
    const std::string key = prefix_ + name;
    if constexpr (std::is_enum_v<T>) {
      archive_.write(key, c10::IValue(static_cast<int64_t>(value)));
    } else if constexpr (std::is_same_v<T, at::Tensor>) {
      if (value.defined()) archive_.write(key, value, /*is_buffer=*/true);
    } else if constexpr (std::is_same_v<T, std::vector<at::Tensor>>) {
      archive_.write(key + "/size", c10::IValue(static_cast<int64_t>(value.size())));
      for (size_t i = 0; i < value.size(); ++i) (*this)(name + "/" + std::to_string(i), value[i]);
    } else if constexpr (HasFields<T, Writer>::value) {
      Writer nested(archive_, key + "/");
      T(value).fields(nested);
    } else {
      archive_.write(key, c10::IValue(value));
    }
  }

 private:
  torch::serialize::OutputArchive& archive_;
  std::string prefix_;
};

/// Reads what a Writer wrote; a missing or ill-typed field is an error that names it.
class Reader {
 public:
  explicit Reader(torch::serialize::InputArchive& archive, std::string prefix = "")
      : archive_(archive), prefix_(std::move(prefix)) {}

  template <class T>
  void operator()(const std::string& name, T& value) {
    const std::string key = prefix_ + name;
    if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(read(key, &c10::IValue::isInt).toInt());
    } else if constexpr (std::is_same_v<T, bool>) {
      value = read(key, &c10::IValue::isBool).toBool();
    } else if constexpr (std::is_integral_v<T>) {
      value = static_cast<T>(read(key, &c10::IValue::isInt).toInt());
    } else if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<T>(read(key, &c10::IValue::isDouble).toDouble());
    } else if constexpr (std::is_same_v<T, std::string>) {
      value = read(key, &c10::IValue::isString).toStringRef();
    } else if constexpr (std::is_same_v<T, at::Tensor>) {
      value = at::Tensor();
      archive_.try_read(key, value, /*is_buffer=*/true);
    } else if constexpr (std::is_same_v<T, std::vector<at::Tensor>>) {
      value.resize(static_cast<size_t>(read(key + "/size", &c10::IValue::isInt).toInt()));
      for (size_t i = 0; i < value.size(); ++i) (*this)(name + "/" + std::to_string(i), value[i]);
    } else {
      Reader nested(archive_, key + "/");
      value.fields(nested);
    }
  }

 private:
  c10::IValue read(const std::string& key, bool (c10::IValue::*is_expected)() const) {
    c10::IValue value;
    TORCH_CHECK(archive_.try_read(key, value) && (value.*is_expected)(), "steppe: the checkpoint has no valid '", key,
                "'; it is damaged, or was written by another version");
    return value;
  }

  torch::serialize::InputArchive& archive_;
  std::string prefix_;
};

}  // namespace steppe::checkpoint
